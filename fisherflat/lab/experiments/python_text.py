"""Text that is on every machine: sources of Python's standard library.

The modules are those that every release from 3.11 to 3.14 has under these names; their text differs a little between
releases. Trained weights are shipped, the text is not.
"""

from __future__ import annotations

import sysconfig
from collections.abc import Iterable
from pathlib import Path

from fisherflat.errors import InputError

_TRAINING = """
_collections_abc _markupbase _pydecimal _pyio _strptime _threading_local _weakrefset abc argparse ast base64 bdb
bisect bz2 calendar cmd code codecs codeop colorsys compileall contextlib copy copyreg dataclasses difflib dis doctest
enum filecmp fileinput fnmatch ftplib functools genericpath getopt getpass gettext glob graphlib gzip hashlib hmac
imaplib inspect ipaddress keyword linecache locale lzma mailbox mimetypes modulefinder netrc ntpath numbers opcode
operator optparse os pdb pickle pickletools pkgutil platform plistlib poplib posixpath pprint profile pstats
py_compile pyclbr pydoc quopri random reprlib rlcompleter runpy sched secrets selectors shelve shutil signal site
smtplib socket socketserver ssl stat stringprep struct subprocess symtable tabnanny tarfile tempfile threading timeit
tokenize trace traceback tracemalloc types typing uuid warnings wave weakref webbrowser zipapp zipimport
asyncio/base_events asyncio/events asyncio/queues asyncio/streams asyncio/tasks concurrent/futures/_base
concurrent/futures/process concurrent/futures/thread email/_header_value_parser email/charset email/feedparser
email/generator email/header email/headerregistry email/message email/utils http/client http/cookiejar http/cookies
http/server importlib/_bootstrap importlib/_bootstrap_external json/decoder json/encoder logging/config
logging/handlers multiprocessing/connection multiprocessing/managers multiprocessing/pool multiprocessing/queues
unittest/case unittest/loader unittest/main unittest/mock urllib/parse urllib/request urllib/robotparser
wsgiref/handlers xml/dom/expatbuilder xml/dom/minidom xml/etree/ElementTree xml/sax/expatreader xml/sax/saxutils
xmlrpc/client xmlrpc/server
"""
#: what the language models are trained on
TRAINING = tuple(f"{name}.py" for name in _TRAINING.split())
#: what they are tested on, whole files that they have never seen
HELD_OUT = (
    *("configparser.py", "csv.py", "fractions.py", "heapq.py", "html/parser.py", "queue.py"),
    *("shlex.py", "statistics.py", "textwrap.py"),
)


def standard_library(modules: Iterable[str]) -> dict[str, str]:
    """The sources of these modules (paths under the standard library), as this Python has them.

    **Raises:** `InputError` where one is not there, as in a Python without its sources.
    """
    folder = Path(sysconfig.get_path("stdlib"))
    found = {}
    for module in modules:
        try:
            found[module] = (folder / module).read_text(encoding="utf-8")
        except OSError as error:
            raise InputError(
                f"this Python has no source file {module} in its standard library ({error.strerror}); use one that "
                "was installed with its sources"
            ) from error
    return found
