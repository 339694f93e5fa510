"""What hosts of many cores can feed, from the rates of few: a model of the pipeline, and its tables.

The decoding, cropping and, on the host, augmentation of images scale with the cores: linear scaling is
assumed, not measured. Other stages of the pipeline run in one thread each, however many cores there are, or
hold Python's lock (GIL). All stages run at the same time, so that the slowest alone limits the rate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

HOSTS = (8, 16, 64)  # cores
GPU_RATE = 2500.0  # images a second that a GPU takes of ResNet-50


def efficiencies(rates: Mapping[int, float]) -> dict[int, float]:
    """Threads → rate, as a share of what so many threads would reach at the rate of the fewest.

    rates: threads → images a second.
    """
    fewest = min(rates)
    return {n: rate / n / (rates[fewest] / fewest) for n, rate in rates.items()}


def fed(core_rate: float, cores: int, serial: Mapping[str, float]) -> tuple[float, str]:
    """(images a second that a host can feed, the stage that limits them; "cores": the parallel stages).

    core_rate: images a second of one core. serial: stage that runs in one thread → seconds an image.
    """
    limits = {"cores": cores * core_rate, **{name: 1 / seconds for name, seconds in serial.items()}}
    limit = min(limits, key=limits.__getitem__)
    return limits[limit], limit


def scaling_table(rates: Mapping[str, Mapping[int, float]]) -> list[str]:
    """Lines: images a second and efficiency of each stage. rates: stage → threads → images a second."""
    lines = [f"{'threads':8}" + "".join(f"{stage:>14}{'efficiency':>12}" for stage in rates)]
    shares = {stage: efficiencies(of_threads) for stage, of_threads in rates.items()}
    for n in next(iter(rates.values())):
        cells = (f"{rates[stage][n]:14.0f}{shares[stage][n]:12.0%}" for stage in rates)
        lines.append(f"{n:<8}" + "".join(cells))
    return lines


def hosts_table(
    core_rates: Mapping[str, float], serial: Mapping[str, Mapping[str, float]], hosts: Sequence[int] = HOSTS
) -> list[str]:
    """Lines: what hosts can feed at each stage.

    core_rates: stage → images a second of one core. serial: stage → as for `fed`.
    """
    lines = [
        "If each core adds as much as the first (linear scaling, an assumption), a host can feed:",
        f"{'cores':8}{'stage':14}{'images/s':>10}{f'GPUs of {GPU_RATE:,.0f}/s':>18}   limited by",
    ]
    for cores in hosts:
        for stage, rate in core_rates.items():
            images, limit = fed(rate, cores, serial[stage])
            lines.append(f"{cores:<8}{stage:14}{images:10,.0f}{images / GPU_RATE:18.1f}   {limit}")
    return lines
