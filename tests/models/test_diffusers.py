"""Folders of UNet2DModel networks, held against diffusers' own samplers on the same folder."""

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMPipeline, DDIMScheduler, DDPMScheduler, UNet2DModel
from safetensors.torch import load_file, save_file

from bench import models, sweep
from bench.diffusion.denoiser import per_sample
from bench.diffusion.noise import Noise
from bench.errors import ModelError, SweepError
from bench.models import Model, describe
from bench.models.diffusers import CERTIFICATE, SHIPPED

TINY = {
    "sample_size": 8,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": 8,
}


def write_folder(
    folder: Path, *, flat: bool = False, unet: dict[str, Any] | None = None, **scheduler: Any
) -> Path:
    """A small network with random weights, in one of the two layouts."""
    torch.manual_seed(0)
    network = UNet2DModel(**{**TINY, **(unet or {})})
    network.save_pretrained(folder if flat else folder / "unet")
    DDPMScheduler(**scheduler).save_config(folder if flat else folder / "scheduler")
    return folder


def load(path: Path, **more: Any) -> Model:
    return describe({"kind": "diffusers", "path": str(path), **more}).load("cpu")


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def images(count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("flat", [False, True], ids=["sub-folders", "flat"])
def test_ddim_steps_are_those_of_diffusers_pipeline(tmp_path: Path, flat: bool) -> None:
    """The whole of DDIMPipeline, with its own loading, grid and arithmetic, from the same x_T."""
    folder = write_folder(tmp_path, flat=flat)
    unet = UNet2DModel.from_pretrained(folder if flat else folder / "unet")
    scheduler = DDIMScheduler.from_pretrained(
        folder if flat else folder / "scheduler", clip_sample=False, set_alpha_to_one=True
    )
    pipeline = DDIMPipeline(unet, scheduler)
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(3)
    theirs = pipeline(
        batch_size=2, generator=generator, num_inference_steps=5, output_type="np", eta=0.0
    ).images

    model = load(folder)
    denoise, schedule = model.denoiser(), model.schedule
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    points = [schedule.at(t=float(t)) for t in range(800, -1, -200)]
    for a, b in zip(points, [*points[1:], schedule.clean], strict=True):
        x0, eps = denoise(x, a)
        x = b.alpha * x0 + b.sigma * eps
    ours = (x / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy()

    assert denoise.nfe == 5
    assert abs(ours - theirs).max() < 1e-4
    assert theirs.std() > 0.1  # not two saturated images


@pytest.mark.parametrize("target", ["epsilon", "sample", "v_prediction"])
def test_parametrisation_is_read_from_the_folder(tmp_path: Path, target: str) -> None:
    folder = write_folder(tmp_path, prediction_type=target)
    scheduler = DDIMScheduler.from_pretrained(folder / "scheduler", clip_sample=False)
    network = UNet2DModel.from_pretrained(folder / "unet").eval()
    model = load(folder)
    scheduler.set_timesteps(1000)
    x, t = images(), 613
    with torch.no_grad():
        output = network(x, t).sample
    theirs = scheduler.step(output, t, x).pred_original_sample
    point = model.schedule.at(t=float(t))
    x0, eps = model.denoiser()(x, point)
    torch.testing.assert_close(x0, theirs, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(point.alpha * x0 + point.sigma * eps, x, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {"beta_schedule": "linear"},
        {"beta_schedule": "linear", "beta_end": 0.01, "num_train_timesteps": 400},
        {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
        {"beta_schedule": "squaredcos_cap_v2"},
        {"trained_betas": [0.1, 0.2, 0.25, 0.3], "num_train_timesteps": 4},
    ],
    ids=["linear", "short", "scaled_linear", "cosine", "trained"],
)
def test_schedule_is_read_from_the_folder(tmp_path: Path, settings: dict[str, Any]) -> None:
    write_folder(tmp_path, **settings)
    schedule = describe({"kind": "diffusers", "path": str(tmp_path)}).schedule()
    theirs = DDPMScheduler.from_pretrained(tmp_path / "scheduler").alphas_cumprod.double()
    ours = torch.tensor([schedule.at(t=float(t)).alpha ** 2 for t in range(len(theirs))])
    assert schedule.num_train == len(theirs)
    torch.testing.assert_close(ours, theirs.float(), rtol=1e-5, atol=1e-7)


def test_a_schedule_in_the_sweep_is_a_claim_that_may_be_right(tmp_path: Path) -> None:
    write_folder(tmp_path, beta_schedule="squaredcos_cap_v2")
    plain = {"kind": "diffusers", "path": str(tmp_path)}
    spec = describe({**plain, "schedule": "vp-cosine"})
    assert spec == describe(plain)
    assert "schedule" not in spec.canonical()


@pytest.mark.parametrize(
    ("settings", "claim", "difference"),
    [
        ({}, "edm", "edm has no betas, and it was trained on 1000"),
        (
            {"num_train_timesteps": 400},
            "vp-linear",
            "vp-linear has 1000 betas, and it was trained on 400",
        ),
        (
            {"beta_end": 0.01},
            "vp-linear",
            "the betas of vp-linear run from 0.0001 to 0.02, and it was trained on 0.0001 to 0.01",
        ),
        (
            {},
            "vp-cosine",
            "the betas of vp-cosine run from 4.128e-05 to 0.999, and it was trained on 0.0001 to "
            "0.02",
        ),
    ],
)
def test_a_schedule_in_the_sweep_that_contradicts_the_folder(
    tmp_path: Path, settings: dict[str, Any], claim: str, difference: str
) -> None:
    write_folder(tmp_path, **settings)
    with pytest.raises(SweepError) as caught:
        sweep.parse(
            f"model: [{{kind: diffusers, path: {tmp_path}, schedule: {claim}}}]\n"
            "samples: 10\nmetrics: [fd_cifar]\nreference: cifar10-mixture\n"
            "grid: [{sampler: ddim, steps: 3}]\n"
        )
    assert str(caught.value) == (
        f"sweep.yaml, line 1: model.schedule is {claim}, and that of {tmp_path} is vp-linear by "
        f"its scheduler_config.json: {difference}. Leave schedule out: it is read from there."
    )


def test_describing_reads_no_weights(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    for file in folder.rglob("*.safetensors"):
        file.unlink()
    spec = describe({"kind": "diffusers", "path": str(folder)})
    assert spec.canonical() == {
        "kind": "diffusers",
        "path": str(folder),
        "dtype": "float32",
        "time": "real",
    }
    assert describe(spec.canonical()) == spec
    assert not spec.exact
    assert spec.schedule().t_max == 999
    with pytest.raises(ModelError) as caught:
        spec.load("cpu")
    assert str(caught.value) == (
        f"{folder} has a configuration but no weights. "
        f"Copy diffusion_pytorch_model.safetensors to {folder / 'unet'}."
    )


def test_real_and_rounded_time_differ_between_indices_only(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    real, rounded = load(folder), load(folder, time="rounded")
    x = images()
    on, between = (real.schedule.at(t=t) for t in (500.0, 500.5))
    torch.testing.assert_close(real.denoiser()(x, on), rounded.denoiser()(x, on))
    difference = real.denoiser()(x, between)[1] - rounded.denoiser()(x, between)[1]
    assert difference.abs().max() > 1e-6
    assert (real.notes["time"], rounded.notes["time"]) == ("real", "rounded to trained indices")


def test_learned_embedding_means_rounded_time(tmp_path: Path) -> None:
    unet = {"time_embedding_type": "learned", "num_train_timesteps": 1000}
    folder = write_folder(tmp_path, unet=unet)
    model = load(folder)
    assert model.notes["time"] == "rounded to trained indices"
    x0, _ = model.denoiser()(images(), model.schedule.at(t=3.4))
    assert x0.isfinite().all()
    with pytest.raises(ModelError, match="learned an embedding per index"):
        load(folder, time="real")


@pytest.mark.parametrize("time", ["real", "rounded"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_each_image_may_have_its_own_noise_level(tmp_path: Path, time: str, dtype: str) -> None:
    """As samplers that choose their own steps ask for it."""
    model = load(write_folder(tmp_path), time=time, dtype=dtype)
    x, points = images(), [model.schedule.at(t=t) for t in (100.3, 600.7)]
    together = model.denoiser()(x, per_sample(points, x))
    for i, point in enumerate(points):
        alone = model.denoiser()(x, point)
        for part, whole in zip(together, alone, strict=True):
            torch.testing.assert_close(part[i], whole[i], rtol=1e-4, atol=1e-4)


def test_learned_variance_is_left_aside(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, unet={"out_channels": 6}, variance_type="learned_range")
    network = UNet2DModel.from_pretrained(folder / "unet").eval()
    model = load(folder)
    x = images()
    with torch.no_grad():
        theirs = network(x, 200).sample[:, :3]
    torch.testing.assert_close(model.denoiser()(x, model.schedule.at(t=200.0))[1], theirs)
    assert model.notes["variance"] == "learned by the network, not used"


def test_bfloat16_is_near_float32_and_keeps_the_samples_dtype(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    full, half = load(folder), load(folder, dtype="bfloat16")
    point = full.schedule.at(t=100.0)
    eps, eps_half = (model.denoiser()(images(), point)[1] for model in (full, half))
    assert eps_half.dtype == torch.float32
    assert 0 < (eps - eps_half).abs().max() < 0.1 * eps.abs().max()
    assert half.dtype == "bfloat16"


def test_old_names_of_attention_weights_are_understood(tmp_path: Path) -> None:
    """google/ddpm-cifar10-32 and its time wrote query, key, value and proj_attn."""
    folder = write_folder(tmp_path, flat=True)
    before = load(folder).denoiser()
    file = folder / "diffusion_pytorch_model.safetensors"
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = load_file(file)
    renamed = {}
    for name, value in tensors.items():
        for new_part, old_part in old.items():
            name = name.replace(f".{new_part}.", f".{old_part}.")
        renamed[name] = value
    assert renamed.keys() != tensors.keys()
    save_file(renamed, file, {"format": "pt"})
    point = describe({"kind": "diffusers", "path": str(folder)}).schedule().at(t=300.0)
    torch.testing.assert_close(load(folder).denoiser()(images(), point), before(images(), point))


def test_digest_follows_weights_and_settings_but_not_the_place(tmp_path: Path) -> None:
    here, there = write_folder(tmp_path / "here"), write_folder(tmp_path / "there")
    first = load(here).digest
    assert load(there).digest == first
    edit(there / "scheduler" / "scheduler_config.json", prediction_type="v_prediction")
    assert load(there).digest != first
    file = here / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    tensors["conv_out.bias"] += 1e-3
    save_file(tensors, file, {"format": "pt"})
    assert load(here).digest != first


COPY = (
    "Copy the checkpoint's folder (config.json, scheduler_config.json and "
    "diffusion_pytorch_model.safetensors, at the top or in unet/ and scheduler/) to this machine "
    "and write path: ./FOLDER"
)


def test_missing_folder() -> None:
    with pytest.raises(ModelError) as caught:
        describe({"kind": "diffusers", "path": "./nowhere"})
    assert str(caught.value) == (
        f'There is no folder "./nowhere". {COPY}, or name a hub repository.'
    )


def test_hub_out_of_reach(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # No name under .invalid exists (RFC 2606), with a network or without.
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://hub.invalid")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError) as caught:
        describe({"kind": "diffusers", "path": "google/ddpm-cifar10-32"})
    message = str(caught.value)
    assert message.startswith(
        'There is no folder "google/ddpm-cifar10-32", and the hub does not give one ('
    )
    assert message.endswith(f"). {COPY}.")


def test_hub_cache_serves_without_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A flat checkpoint in the layout of the hub's cache, as another run downloaded it."""
    repository = tmp_path / "models--someone--tiny"
    snapshot = write_folder(repository / "snapshots" / ("0" * 40), flat=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://hub.invalid")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.file_download.constants.HF_HUB_CACHE", str(tmp_path))
    spec = describe({"kind": "diffusers", "path": "someone/tiny"})
    assert spec.label == "someone/tiny"
    assert spec.load("cpu").digest == load(snapshot).digest


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        (
            "unet/config.json",
            {"num_class_embeds": 10},
            "{0} is class-conditional (config.json has num_class_embeds 10); only unconditional "
            "networks can be run. Take an unconditional one, or give it labels in a function of "
            "your own, kind: torch.",
        ),
        (
            "unet/config.json",
            {"in_channels": 4},
            "{0}: the network takes 4 channels and gives 3; expected 3 (RGB) and 3, or 6 where it "
            "learned its variance.",
        ),
        (
            "unet/config.json",
            {"sample_size": None},
            "{0}: config.json has sample_size None; expected pixels, such as 32 or [32, 32].",
        ),
        (
            "unet/config.json",
            {"_class_name": "UNet2DConditionModel"},
            "{0}: config.json describes a UNet2DConditionModel; only unconditional UNet2DModel "
            "networks can be run.",
        ),
        (
            "unet/config.json",
            {"time_embedding_type": "fourier"},
            "{0} embeds the noise level, not an index (config.json has time_embedding_type "
            "fourier); only networks of a discrete VP schedule can be run.",
        ),
        (
            "scheduler/scheduler_config.json",
            {"prediction_type": "epsilom"},
            '{0}: scheduler_config.json has prediction_type "epsilom"; expected epsilon or sample '
            'or v_prediction. Did you mean "epsilon"?',
        ),
        (
            "scheduler/scheduler_config.json",
            {"beta_schedule": "sigmoid"},
            '{0}: scheduler_config.json has beta_schedule "sigmoid"; expected linear, '
            "scaled_linear, squaredcos_cap_v2, trained_betas.",
        ),
        (
            "scheduler/scheduler_config.json",
            {"rescale_betas_zero_snr": True},
            "{0}: scheduler_config.json has rescale_betas_zero_snr true; a network that starts at "
            "alpha = 0 cannot be run.",
        ),
        (
            "scheduler/scheduler_config.json",
            {"beta_start": -1.0},
            "{0}: scheduler_config.json: vp-linear needs at least two betas, all between 0 and 1.",
        ),
    ],
)
def test_configurations_that_cannot_be_run(
    tmp_path: Path, file: str, changes: dict[str, Any], message: str
) -> None:
    folder = write_folder(tmp_path)
    edit(folder / file, **changes)
    with pytest.raises(ModelError) as caught:
        describe({"kind": "diffusers", "path": str(folder)})
    assert str(caught.value) == message.format(folder)


def test_flow_scheduler_has_no_betas(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    config = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000}
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="FlowMatchEulerDiscreteScheduler without a beta_schedule"):
        describe({"kind": "diffusers", "path": str(folder)})


def test_folder_without_scheduler(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    (folder / "scheduler" / "scheduler_config.json").unlink()
    with pytest.raises(ModelError) as caught:
        describe({"kind": "diffusers", "path": str(folder)})
    assert str(caught.value) == (
        f"{folder} has neither scheduler/scheduler_config.json nor scheduler_config.json. {COPY}."
    )


@pytest.mark.parametrize(("text", "said"), [("{", "is not JSON"), ("[]", "holds a list")])
def test_broken_configuration(tmp_path: Path, text: str, said: str) -> None:
    folder = write_folder(tmp_path)
    (folder / "unet" / "config.json").write_text(text)
    with pytest.raises(ModelError, match=said):
        describe({"kind": "diffusers", "path": str(folder)})


def test_the_shipped_network_knows_images_from_noise() -> None:
    """On a mixture that looks like its data its loss is near the least, that of the mixture."""
    network, mixture = (models.load(describe(f"cifar10-{n}"), "cpu") for n in ("unet", "mixture"))
    noise = Noise(0, range(8), network.shape)
    x0, eps = mixture.draw(noise), noise()
    assert x0 is not None
    for t in (100.0, 500.0, 900.0):
        point = network.schedule.at(t=t)
        x = point.alpha * x0 + point.sigma * eps
        found, least = (
            float(((model.denoiser()(x, point)[1] - eps) ** 2).mean())
            for model in (network, mixture)
        )
        assert least < found < 2 * least


def test_the_shipped_network_is_small_and_certified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = SHIPPED["cifar10-unet"]
    certificate = json.loads((folder / CERTIFICATE).read_text())
    assert certificate["parameters"] <= 10_500_000
    weights = folder / "diffusion_pytorch_model.safetensors"
    assert weights.stat().st_size <= 21_000_000
    card = (folder / "README.md").read_text()
    assert f"{certificate['recipe']['images']:,} images" in card

    other = tmp_path / "cifar10-unet"
    shutil.copytree(folder, other)
    changed = bytearray(weights.read_bytes())
    changed[-1] ^= 1
    (other / weights.name).write_bytes(changed)
    monkeypatch.setitem(SHIPPED, "cifar10-unet", other)
    with pytest.raises(ModelError, match=r"has been changed since .*Reinstall sampler-bench"):
        models.load(describe("cifar10-unet"), "cpu")


def test_truncated_weights(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ModelError) as caught:
        load(folder)
    assert str(caught.value).startswith(f"{file} is not a whole safetensors file (")
    assert str(caught.value).endswith("). Copy it again.")


def test_weights_that_lack_a_tensor(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    del tensors["conv_out.bias"]
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(ModelError) as caught:
        load(folder)
    assert str(caught.value) == (
        f"The weights in {folder / 'unet'} lack 1 of the tensors that config.json asks for, first "
        "conv_out.bias: they belong to another network."
    )


def test_weights_of_another_size(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    edit(folder / "unet" / "config.json", block_out_channels=[8, 32])
    with pytest.raises(ModelError, match="cannot be loaded"):
        load(folder)


@pytest.mark.parametrize(
    ("description", "message"),
    [
        (
            {"kind": "diffusers"},
            "model.path is None; expected a folder of this machine or a hub name such as "
            "google/ddpm-cifar10-32.",
        ),
        (
            {"kind": "diffusers", "path": "x", "dtyp": "float32"},
            'model of kind diffusers: there is no key "dtyp". Did you mean "dtype"? Known are: '
            "kind, path, dtype, time, schedule.",
        ),
        (
            {"kind": "diffusers", "path": "x", "dtype": "half"},
            'model.dtype is "half"; expected float32 or bfloat16 or float16.',
        ),
    ],
)
def test_wrong_descriptions(description: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError) as caught:
        describe(description)
    assert str(caught.value) == message


def test_a_network_is_compiled_once_where_that_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[torch.nn.Module] = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **_: compiled.append(self))
    spec = describe({"kind": "diffusers", "path": str(write_folder(tmp_path))})
    assert models.load(spec, "cpu").network is not None
    assert not compiled
    assert models.load(spec, "cpu", compiled=True).network is compiled[0]
    models.load(describe("cifar10-mixture"), "cpu", compiled=True)  # has nothing to compile
    assert len(compiled) == 1


@pytest.mark.slow
def test_a_compiled_network_is_the_network(tmp_path: Path) -> None:
    spec = describe({"kind": "diffusers", "path": str(write_folder(tmp_path))})
    plain, fast = models.load(spec, "cpu"), models.load(spec, "cpu", compiled=True)
    point = plain.schedule.at(t=400.5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the compiler's own, about diffusers' code
        pairs = zip(plain.pair(images(), point), fast.pair(images(), point), strict=True)
    for a, b in pairs:
        assert torch.allclose(a, b, atol=1e-4 / point.alpha)
