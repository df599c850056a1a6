"""Library code leaves alone what is the program's: its output, logs, environment and network."""

import re
import subprocess
import sys

SCRIPT = """
import logging, os, sys

# What others do when they are imported is theirs.
import langchain_core.embeddings, qdrant_client, qdrant_edge, torch

FORBIDDEN = {"os.putenv", "os.system", "os.unsetenv", "socket.connect", "socket.getaddrinfo",
             "subprocess.Popen"}
seen = []
sys.addaudithook(lambda event, arguments: event in FORBIDDEN and seen.append((event, arguments)))


def configured():
    loggers = [logging.root, *map(logging.getLogger, logging.root.manager.loggerDict)]
    return {logger.name: (logger.level, *logger.handlers) for logger in loggers}


environment, logs = dict(os.environ), configured()

from gte_core import EncoderSettings, GTEEmbedder, shared_encoder
from gte_integrations.langchain import GTEEmbeddings
from gte_integrations.qdrant import QdrantHybridIndex

embedder = GTEEmbedder.from_pretrained("demo", max_length=8)
embedder.encode(["some words", "and far more words than a text of eight tokens may have"])
with QdrantHybridIndex(sys.argv[1], "docs", embedder) as index:
    index.create()
    index.add([("a", "some words"), ("b", "")])
    index.search("words")
shared_encoder(EncoderSettings(model="demo")).encode("some words")
GTEEmbeddings(model="demo").embed_query("some words")

assert dict(os.environ) == environment
assert not seen, seen
for name, state in configured().items():
    expected = (logging.NOTSET,) if name.startswith("gte_") else logs.get(name, state)
    assert state == expected, (name, state)
"""


def test_nothing_is_printed_configured_changed_or_asked_of_the_network(tmp_path):
    command = [sys.executable, "-c", SCRIPT, tmp_path]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    # The text that was cut, by Python's handler of last resort.
    assert re.fullmatch(r"1 text\(s\) were longer .*\n", done.stderr)
