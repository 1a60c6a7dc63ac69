"""The checks of ``gpu_check.py`` on networks, whole steps and whole runs. Never run on a GPU so far.

Each is as in ``gpu_checks.py``. The networks at full size have random weights, which cost what trained ones cost.
"""

from __future__ import annotations

import dataclasses
import functools
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from gpu_checks import Device, Report, difference, milliseconds, needs_cuda, wait
from torch import Tensor

from dream3d import distill
from dream3d.cameras import orbit
from dream3d.kernels import composite, march
from dream3d.recipe.generation import Stage
from dream3d.recipe.presets import PRESETS, preset
from dream3d.run import checkpoints

PROMPT = "a wooden chair"


def _mini(device: Device) -> Any:
    """The built-in prior in float32, which needs diffusers, and the states of a prompt."""
    from dream3d.prior.diffusion import DiffusionPrior
    from dream3d.prior.layout import PACKAGED
    from dream3d.prior.memory import MemoryPlan

    prior = DiffusionPrior(PACKAGED / "mini", device, MemoryPlan(precision="fp32"))
    return prior, prior.encode_prompt(PROMPT, "")


def _by_torch(state: distill.Distillation) -> distill.Distillation:
    """A run whose renders use no optional library, since those place samples elsewhere."""
    state.scene.renderer._visible_samples = march.visible_samples
    state.scene.renderer._ray_weights = composite.weights_from_density
    return state


def one_step(report: Report, device: Device) -> None:
    """One step of each preset, small, in float32: the device against the CPU, which alone is compared with itself."""
    for name, recipe in PRESETS.items():
        shading = recipe.shading and dataclasses.replace(recipe.shading, from_step=0, albedo_probability=0.0)
        render = dataclasses.replace(recipe.render, samples_per_diagonal=96)
        small = dataclasses.replace(recipe, stages=(Stage(0, 32, 1),), shading=shading, render=render)
        losses = []
        for place in (device, Device("cpu")):
            prior, text = _mini(place)
            step = _by_torch(distill.start(small, prior, 0, place, "torch")).step(0, text)
            losses.append(float(step.measured[0]))
        report.figures[f"loss of {name}"] = losses[0]
        report.at_most("difference", abs(losses[0] / losses[1] - 1), 1e-3)


class _FullPrior:
    """SD 2.1's networks with random weights and the official precision of each: what the recipe ``mvdream`` needs."""

    views, image_size, background = 4, 256, (0.5, 0.5, 0.5)

    def __init__(self, device: Device, dtype: torch.dtype = torch.float16) -> None:
        from full_size_step import TEXT, RandomPrior

        from dream3d.prior.conditioning import Conditioning

        prior = RandomPrior()
        self.device, self.dtype, self.alphas_cumprod = device, dtype, prior.alphas_cumprod
        self.codec, self.unet = prior.codec.to(device), prior.unet.to(device, dtype)
        states = torch.randn(2, *TEXT[1:], generator=torch.Generator().manual_seed(1)).to(device, dtype)
        self.text = Conditioning.from_text(states[:1], states[1:])

    def encode_images(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """As a prior does."""
        return self.codec.encode(images * 2 - 1, generator)

    @torch.no_grad()
    def predict(self, x_t: Tensor, timestep: int, cameras: Any) -> Tensor:
        """The network's output (2 N, 4, h, w), with and without the text."""
        from dream3d.prior.unet import call_unet

        halves = (self.text.conditional.text, self.text.unconditional.text)
        context = torch.cat([half.expand(len(x_t), -1, -1) for half in halves])
        poses = cameras.conditioning().to(self.device, self.dtype).repeat(2, 1)
        times = torch.full((2 * len(x_t),), timestep, device=self.device)
        return call_unet(self.unet, x_t.to(self.dtype).repeat(2, 1, 1, 1), times, context, poses, self.views)

    def predict_x0(
        self, x_t: Tensor, timestep: int, cameras: Any, conditioning: Any, views: int
    ) -> tuple[Tensor, Tensor]:
        """As a prior does, with ``self.views`` views."""
        from dream3d.guidance import x0_from_prediction

        noise = self.predict(x_t, timestep, cameras).to(x_t)
        x0 = x0_from_prediction(x_t.repeat(2, 1, 1, 1), noise, float(self.alphas_cumprod[timestep]), "epsilon")
        conditional, unconditional = x0.chunk(2)
        return conditional, unconditional


def full_unet(report: Report, device: Device) -> None:
    """SD 2.1's UNet with random weights: float16 against float32, its attention kernels, its time at batch 16."""
    needs_cuda(device)
    prior = _FullPrior(device, torch.float32)
    x_t, cameras = torch.randn(8, 4, 32, 32, generator=torch.Generator().manual_seed(0)).to(device), orbit(8)
    wanted = prior.predict(x_t, 500, cameras)
    prior.unet, prior.dtype = prior.unet.half(), torch.float16
    halves = {name: getattr(prior.text, name).text.half() for name in ("conditional", "unconditional")}
    prior.text = type(prior.text).from_text(*halves.values())
    report.at_most("difference of float16", difference(prior.predict(x_t, 500, cameras), wanted), 1e-2)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        prior.predict(x_t, 500, cameras)
    names = {event.key.lower() for event in profile.key_averages()}
    kinds = ("flash", "cudnn", "fmha", "cutlass")
    report.holds("a flash or cudnn kernel", any(kind in name for name in names for kind in kinds[:3]))
    report.figures["ms"] = milliseconds(lambda: prior.predict(x_t, 500, cameras), device)


def full_vae(report: Report, device: Device) -> None:
    """The VAE's encoder forward and backward on 4 and 8 images: float32, bf16, image by image."""
    needs_cuda(device)
    codec = _FullPrior(device).codec
    for count in (4, 8):
        images = torch.rand(count, 3, 256, 256, generator=torch.Generator().manual_seed(0)).to(device)
        wanted = None
        for name in ("float32", "bf16", "checkpointed"):
            codec.set_slicing(name == "checkpointed")
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
            before, start = torch.cuda.memory_allocated(device), time.perf_counter()
            pixels = images.clone().requires_grad_()
            with torch.autocast("cuda", torch.bfloat16, enabled=name == "bf16"):
                latents = codec.encode(pixels * 2 - 1)
            latents.float().square().sum().backward()
            wait(device)
            report.figures[f"ms of {count} {name}"] = (time.perf_counter() - start) * 1000
            report.figures[f"GB of {count} {name}"] = (torch.cuda.max_memory_allocated(device) - before) / 1e9
            gradient = pixels.grad
            assert gradient is not None
            wanted = gradient if wanted is None else wanted
            cosine = torch.nn.functional.cosine_similarity(gradient.flatten(), wanted.flatten(), dim=0)
            report.at_least(f"cosine of {count} {name}", float(cosine), 0.99)


def full_steps(report: Report, device: Device) -> None:
    """Steps of both stages of ``mvdream`` at full size: how often the host waits, time, memory."""
    needs_cuda(device)
    prior: Any = _FullPrior(device)
    state = distill.start(preset("mvdream"), prior, 0, device)
    _steps(report, device, state, prior.text, {"stage 1": 0, "stage 2": 5000}, torch.cuda.get_device_properties(device))


def shading(report: Report, device: Device) -> None:
    """Steps of ``mvdream-shading`` with lights, at 64 and at 256 pixels, with the built-in prior."""
    needs_cuda(device)
    prior, text = _mini(device)
    recipe = preset("mvdream-shading")
    assert recipe.shading is not None
    lit = dataclasses.replace(recipe.shading, from_step=0, albedo_probability=0.0)
    state = distill.start(dataclasses.replace(recipe, shading=lit), prior, 0, device)
    _steps(report, device, state, text, {"64 px": 0, "256 px": 5000}, torch.cuda.get_device_properties(device))


def _steps(report: Report, device: Device, state: Any, text: Any, at: dict[str, int], card: Any) -> None:
    """Five steps from each of some steps: the figures of the last four."""
    for name, first in at.items():
        state.step(first, text)
        torch.cuda.reset_peak_memory_stats(device)
        torch.cuda.set_sync_debug_mode("warn")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            state.step(first + 1, text)
        torch.cuda.set_sync_debug_mode("default")
        report.figures[f"syncs in {name}"] = sum("synchroniz" in str(one.message) for one in caught)
        steps = iter(range(first + 2, first + 7))
        report.figures[f"ms in {name}"] = milliseconds(functools.partial(_next, state, steps, text), device, 3)
        peak = torch.cuda.max_memory_allocated(device) / 1e9
        report.at_most(f"GB in {name}", peak, card.total_memory / 1e9)
        report.figures[f"renders with a longer step in {name}"] = state.scene.renderer.coarsened


def _next(state: distill.Distillation, steps: Iterator[int], text: Any) -> None:
    state.step(next(steps), text)


def mini_run(report: Report, device: Device) -> None:
    """The recipe ``mini``, twice with a seed, the second time stopped and begun again from its checkpoint."""
    prior, text = _mini(device)
    steps = 60 if device.type == "cuda" else 2
    recipe = preset("mini").with_steps(steps)
    states: list[distill.Distillation] = []
    with tempfile.TemporaryDirectory() as folder:
        for stop in (None, steps // 2):
            state = distill.start(recipe, prior, 7, device)
            for step in range(steps):
                if step == stop:
                    path = checkpoints.write(Path(folder), step, 1, {}, state.state_dict())
                    state = distill.start(recipe, prior, 8, device)
                    state.load_state_dict(step, checkpoints.read(path, 1)[1])
                measured = state.step(step, text).measured
            states.append(state)
    report.figures["loss"] = float(measured[0])
    report.at_most("skipped updates", float(measured[3]), 0)
    first, second = (state.scene.field.state_dict() for state in states)
    report.holds("finite", all(bool(torch.isfinite(value).all()) for value in first.values()))
    apart = max(float((value.float() - second[name].float()).abs().max()) for name, value in first.items())
    if device.type == "cuda":  # additions in no fixed order, so that equal bytes are found out, not required
        report.figures["largest difference of the two fields"] = apart
        report.at_least("IoU of field and surface", _agreement(states[0], recipe.mesh.resolution), 0.95)
    else:
        report.holds("same bytes", apart == 0)


def _agreement(state: distill.Distillation, resolution: int) -> float:
    """Mean IoU of the silhouettes of a field and of its best surface."""
    from dream3d.mesh.grid import sample_density_grid
    from dream3d.mesh.iso import choose_iso_level

    scene, cameras = state.scene, orbit(8)
    opacity = scene.evaluate(cameras, 128).opacity[..., 0].cpu().numpy()
    grid = sample_density_grid(scene.field.density, resolution, device=scene.device)
    return choose_iso_level(grid, opacity > 0.5, cameras).iou


def training(report: Report, device: Device) -> None:
    """A training step of the built-in prior's network: bf16 against float32, images a second."""
    from dream3d.prior.layout import PACKAGED
    from dream3d.prior.unet import call_unet
    from dream3d.training.network import make_network

    objects = 16 if device.type == "cuda" else 1
    generator = torch.Generator().manual_seed(0)
    unet = make_network(PACKAGED / "mini" / "unet", {}, "3d", 16, generator).to(device).train()
    config, count = unet.config, 4 * objects
    shape = (count, config.in_channels, config.sample_size, config.sample_size)
    x_t, target = (torch.randn(shape, generator=generator).to(device) for _ in range(2))
    text = torch.randn(count, 16, config.cross_attention_dim, generator=generator).to(device)
    times, poses = torch.full((count,), 500, device=device), orbit(4).conditioning().repeat(objects, 1).to(device)
    optimizer = torch.optim.AdamW(unet.parameters(), lr=0.0, fused=True)

    def step(half: bool) -> float:
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            loss = (call_unet(unet, x_t, times, text, poses, 4).float() - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    losses = [step(half) for half in (False, True)]
    report.at_most("difference of bf16", abs(losses[1] / losses[0] - 1), 1e-2)
    for name, half in (("float32", False), ("bf16", True)):
        took = milliseconds(functools.partial(step, half), device, 10 if device.type == "cuda" else 1)
        report.figures[f"images/s in {name}"] = 1000 * count / took
