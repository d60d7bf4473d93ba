"""What the machine does, measured against bars; `tandem bench` runs it."""

from pathlib import Path

RECIPES = Path(__file__).resolve().parent.parent / "recipes"
