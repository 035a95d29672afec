"""Ways to keep what must stay, by the names that `release.keep` gives weights to. They combine."""

from collections.abc import Mapping

from .activations import ActivationNullSpace
from .base import Keeper, Role, Training
from .ending import Ending
from .kl import KL, KLForget
from .l2 import L2
from .nll import NLL, NLLForget
from .null_space import HardNullSpace
from .penalties import GaugeFree, OLoRA, OLoRANormalised

KEEPERS: dict[str, type[Keeper]] = {
    "kl": KL, "kl-forget": KLForget, "ending": Ending, "nll": NLL, "nll-forget": NLLForget, "l2": L2, "olora": OLoRA,
    "olora-normalised": OLoRANormalised, "gauge-free": GaugeFree, "null-space": HardNullSpace,
    "activation-null-space": ActivationNullSpace, "skill-null-space": ActivationNullSpace,
}  # fmt: skip


def keepers(weights: Mapping[str, float], role: Role, training: Training) -> list[Keeper]:
    """Those of `weights` above 0 that are for a module of this role, by name, so that no figure hangs on the order they were given in.

    Names are checked by `RunConfig.check`.
    """
    return [KEEPERS[name](weight, training) for name, weight in sorted(weights.items()) if weight and role in KEEPERS[name].roles]
