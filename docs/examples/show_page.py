"""Print a web page, waiting up to ten seconds for whoever is about to serve it: `python show_page.py URL`.

Standard library only; asks the address itself, never a proxy.
"""

from __future__ import annotations

import sys
import time
import urllib.error
import urllib.request


def page(url: str, seconds: float = 10.0) -> str:
    """The page's text. Raises OSError when nobody serves it in time."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + seconds
    while True:
        try:
            with opener.open(url, timeout=seconds) as answer:
                return str(answer.read().decode("utf-8", "replace"))
        except urllib.error.HTTPError:
            raise  # somebody does serve, and says no
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


if __name__ == "__main__":
    sys.stdout.write(page(sys.argv[1]))
