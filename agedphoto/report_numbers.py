"""Numbers of the report, as people read them."""


def figure(value: float | None, digits: int) -> str:
    """A rounded number for the eye that carries the exact one."""
    return "–" if value is None else f'<data value="{value!r}">{value:.{digits}f}</data>'


def number(value: float | None, digits: int | None = None) -> str:
    """With `digits` decimals, or else with the three digits that count."""
    if value is None:
        return "–"
    if digits is None:
        return f"{value:.3g}" if abs(value) < 999.5 else f"{value:,.0f}"
    return f"{value:,.{digits}f}"


def count(value: float) -> str:
    """Thousands and millions by letter, from ten thousand on."""
    scale, unit = (1e6, " M") if value >= 1e6 else (1e3, " k") if value >= 1e4 else (1, "")
    return f"{value / scale:.3g}{unit}" if unit else f"{value:,.0f}"


def duration(seconds: float | None) -> str:
    """Seconds, or minutes and seconds from two minutes on."""
    if seconds is None or seconds < 120:
        return f"{number(seconds)} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if rest else f"{minutes} min"
