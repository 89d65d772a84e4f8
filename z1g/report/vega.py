"""Vega-Lite, the page's chart library, as text that a page contains; nothing is fetched.

`vl-convert-python` carries the scripts of Vega, Vega-Lite and Vega-Embed, which are maintained together. Vega can
interpret its expressions, so that the page's Content-Security-Policy need not allow `eval`.
"""

import base64
import gzip
from functools import cache


@cache
def library() -> str:
    """The script, compressed with gzip, in base64: about 0.4 MB for 0.9 MB. Takes about a second the first time."""
    import vl_convert

    script = vl_convert.javascript_bundle()  # type: ignore[call-arg]  # its type says that a snippet is needed
    return base64.b64encode(gzip.compress(script.encode(), compresslevel=9, mtime=0)).decode("ascii")
