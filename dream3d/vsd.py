"""Variational score distillation: a copy of the prior that learns the field's own views, beside the field.

ProlificDreamer (Wang et al. 2023, arXiv 2305.16213), equation 9 and algorithm 1. Plain SDS asks what the prior takes
for noise in a noised view, and compares it with the noise that was added. VSD compares it with what the copy takes for
noise: the copy knows how the field's views look by now, and the field moves where the prior says something else.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from dream3d.cameras import Cameras
from dream3d.errors import UsageError
from dream3d.guidance import diffuse, epsilon_from_x0, x0_from_prediction
from dream3d.personalise.lora import add_lora, check_peft, lora_parameters
from dream3d.prior.base import MultiViewPrior
from dream3d.prior.conditioning import Conditioning
from dream3d.prior.context import make_context
from dream3d.prior.diffusion import DiffusionPrior
from dream3d.prior.unet import call_unet
from dream3d.recipe.generation import Recipe
from dream3d.recipe.vsd import VsdRecipe
from dream3d.targets import Target


def check_can_learn(recipe: Recipe, prior: MultiViewPrior) -> None:
    """UsageError if a recipe asks for a copy, and this prior has no network to copy, or peft is not installed."""
    if recipe.guidance.loss != "vsd":
        return
    if not isinstance(prior, DiffusionPrior):
        raise UsageError("guidance.loss=vsd needs a prior with a UNet, of which a copy can learn; use another loss")
    check_peft("guidance.loss=vsd", "another loss, such as sds")


def learnt_copy(recipe: Recipe, prior: MultiViewPrior, seed: int) -> LearntCopy | None:
    """The copy that a recipe asks for, before its first update; None without. Raises as :func:`check_can_learn`."""
    check_can_learn(recipe, prior)
    if recipe.guidance.loss != "vsd":
        return None
    assert isinstance(prior, DiffusionPrior)  # it was checked
    return LearntCopy(prior, recipe.vsd or VsdRecipe(), recipe.guidance.prior_views == "together", seed)


class LearntCopy:
    """The prior's UNet with small learnt matrices (LoRA); the frozen weights are the prior's own, held once.

    It is told the text, the cameras and the pictures that the prior is told with the prompt. It always hears of the
    cameras, also where the prior sees one view at a time and hears of none.
    """

    def __init__(self, prior: DiffusionPrior, recipe: VsdRecipe, together: bool, seed: int) -> None:
        """``together``: the views of an object are attended together; otherwise each by itself.

        ``seed`` is of the matrices. Raises UsageError without peft.
        """
        self.prior, self.recipe, self.together = prior, recipe, together
        shared = {id(one): one for one in (*prior.unet.parameters(), *prior.unet.buffers())}
        self.unet = copy.deepcopy(prior.unet, shared)
        add_lora(self.unet, recipe.rank, seed)
        self.parameters = lora_parameters(self.unet)
        for parameter in self.parameters.values():
            parameter.data = parameter.data.float()  # updates of 1e-4 are lost in half precision
        self.optimizer = torch.optim.AdamW(list(self.parameters.values()), lr=recipe.lr)
        for parameter in self.parameters.values():  # from the start on, so that a state always has the same tensors
            self.optimizer.state[parameter] = {
                "step": torch.zeros(()),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }

    @torch.no_grad()
    def compare(self, target: Target, conditioning: Conditioning, views: int) -> Target:
        """The target with what the copy takes for noise in the place of its noise.

        ``views`` are those of one object, consecutive in the batch. The gradient of :func:`dream3d.guidance.sds_loss`
        is then w(t) (e_prior - e_copy) / B: equation 9.
        """
        timesteps = torch.full((len(target.x_t),), target.timestep)
        said = self._predict(target.x_t, timesteps, target.cameras, conditioning, views)
        x0 = x0_from_prediction(target.x_t, said, target.alpha_bar, self.prior.prediction_type)
        return replace(target, noise=epsilon_from_x0(target.x_t, x0, target.alpha_bar))

    def learn(
        self, latents: Tensor, cameras: Cameras, conditioning: Conditioning, views: int, generator: torch.Generator
    ) -> Tensor:
        """Update the copy towards the field's latents (N, C, h, w), without gradients; the loss of the last update.

        The diffusion loss of algorithm 1, at timesteps drawn from the whole schedule, one for each group that is
        attended together. The loss is summed over latents: in a mean, half precision would lose small gradients. An
        update whose gradients are not finite is left out.
        """
        group = views if self.together else 1
        for _ in range(self.recipe.updates):
            drawn = torch.randint(0, len(self.prior.alphas_cumprod), (len(latents) // group,), generator=generator)
            timesteps = drawn.repeat_interleave(group)
            noise = torch.randn(latents.shape, generator=generator).to(latents)
            alpha_bar = self.prior.alphas_cumprod[timesteps].to(latents)
            x_t, wanted = diffuse(latents.detach(), noise, alpha_bar, self.prior.prediction_type)
            said = self._predict(x_t, timesteps, cameras, conditioning, views)
            error = (said.float() - wanted.float()).square().sum() / len(latents)
            self.optimizer.zero_grad(set_to_none=True)
            error.backward()
            gradients = [one.grad for one in self.parameters.values() if one.grad is not None]
            if torch.stack([torch.isfinite(one).all() for one in gradients]).all():
                self.optimizer.step()
        return error.detach()

    def _predict(
        self, x_t: Tensor, timesteps: Tensor, cameras: Cameras, conditioning: Conditioning, views: int
    ) -> Tensor:
        """The copy's output (N, C, h, w) with the prompt, in the prior's prediction type."""
        prior, told, count = self.prior, conditioning.conditional, len(x_t)
        keys = None
        if told.image_tokens is not None:
            tokens = told.image_tokens.expand(count, -1, -1).to(prior.dtype)
            made = make_context(self.unet, None, tokens, prior.image_adapter.module)
            text_weight, image_weight = conditioning.text_weight, conditioning.image_weight
            keys = {
                name: one._replace(text_weight=text_weight, image_weight=image_weight) for name, one in made.items()
            }
        said = call_unet(
            self.unet,
            x_t.to(prior.dtype),
            timesteps.to(prior.device),
            told.text.expand(count, -1, -1),
            cameras.conditioning().to(prior.device, prior.dtype),
            views if self.together else 1,
            keys,
        )
        return said.to(x_t.dtype)

    def state_dict(self) -> dict[str, Tensor]:
        """Matrices and moments: all that the next update depends on, besides its random numbers."""
        state = {f"lora.{name}": value.detach() for name, value in self.parameters.items()}
        for name, parameter in self.parameters.items():
            state |= {f"{moment}.{name}": value for moment, value in self.optimizer.state[parameter].items()}
        return state

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go back to what :meth:`state_dict` gave. Raises KeyError for another copy's."""
        for name, value in self.state_dict().items():
            value.copy_(state[name])
