"""How a report writes numbers: 93.3 %, 0.214, 1,768, 4 min 12 s; a dash for what is not known."""

from __future__ import annotations

import math

DASH = "–"
NBSP = "\N{NO-BREAK SPACE}"


def percent(fraction: float | None) -> str:
    """One digit after the point; what only rounds to 0 or 100 % says so: < 0.1 %, > 99.9 %."""
    if fraction is None or not math.isfinite(fraction):
        return DASH
    return _rounded(100 * fraction, 1, most=100.0) + NBSP + "%"


def decimal(value: float | None) -> str:
    """Three digits after the point; what only rounds to 0 says < 0.001."""
    if value is None or math.isnan(value):
        return DASH
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    return _rounded(value, 3)


def count(n: int | None) -> str:
    """1,768."""
    return DASH if n is None else f"{n:,}"


def counted(n: int, singular: str, plural: str | None = None) -> str:
    """1 picture, 2 pictures."""
    return f"{n:,}{NBSP}{singular if n == 1 else plural or singular + 's'}"


def duration(seconds: float | None) -> str:
    """12.3 s, 4 min 12 s, 2 h 05 min."""
    if seconds is None or not math.isfinite(seconds):
        return DASH
    if round(seconds, 1) < 60:
        return f"{seconds:.1f}{NBSP}s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}{NBSP}min {whole % 60:02d}{NBSP}s"
    return f"{whole // 3600}{NBSP}h {whole % 3600 // 60:02d}{NBSP}min"


def span(low: str, high: str) -> str:
    """Join the ends of an interval, already written: 90.1 % to 95.5 %."""
    return DASH if DASH in (low, high) else f"{low} to {high}"


def _rounded(value: float, digits: int, most: float | None = None) -> str:
    text, step = f"{abs(value):.{digits}f}", 10.0**-digits
    if float(text) == 0:
        return f"{0:.{digits}f}" if value == 0 else f"<{NBSP}{step:.{digits}f}"
    if most is not None and value < most and float(text) >= most:
        return f">{NBSP}{most - step:.{digits}f}"
    return f"{'−' if value < 0 else ''}{text}"
