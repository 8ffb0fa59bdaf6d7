"""Run a crawl in a process of its own, as `normistral corpus crawl` does, with a quick judge of languages."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from northern import quick_steps

from normistral.corpus.crawl import crawl
from normistral.errors import Stopped, UserError
from normistral.recipe.crawl import load_crawl


def main() -> None:
    settings, folder = Path(sys.argv[1]), Path(sys.argv[2])
    overrides = tuple(argument for argument in sys.argv[3:] if argument != "--retry")
    try:
        crawl(load_crawl(settings, overrides), folder, "--retry" in sys.argv, make_steps=quick_steps)
    except Stopped as stopped:
        print(f"stopped: {stopped}", file=sys.stderr)
        sys.exit(130)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
