"""Random generators seeded by their purpose, so that no run depends on the order of draws."""

import hashlib

import torch

Part = int | str


def derive_seed(*parts: Part) -> int:
    """A 63-bit seed that depends on every part and on nothing else.

    Example:
        >>> derive_seed(0, "views", 3, 14) == derive_seed(0, "views", 3, 14)
        True
        >>> derive_seed(0, "views", 3, 14) == derive_seed(0, "views", 3, 15)
        False
    """
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def derive_generator(*parts: Part, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator on ``device``, seeded by :func:`derive_seed` of the parts."""
    return torch.Generator(device).manual_seed(derive_seed(*parts))


def global_random_state(device: torch.device | str = "cpu") -> dict[str, torch.Tensor]:
    """The states of torch's global generators, for the CPU and for ``device`` if it is a CUDA device."""
    device = torch.device(device)
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_global_random_state(state: dict[str, torch.Tensor]) -> None:
    """Restore a state that :func:`global_random_state` returned."""
    torch.set_rng_state(state["cpu"].cpu())
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())
