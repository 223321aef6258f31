"""A little of Asterisk's dialplan: enough to run the contexts of examples/asterisk as they stand.

Variables and functions are put in as Asterisk does; applications are played by the simulated peers.
The ports that the files name are those of the servers that the test has started.
"""

from __future__ import annotations

import re
import subprocess
import threading
import uuid
from collections.abc import Callable
from configparser import ConfigParser
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlsplit

from agi_peer import EXAMPLES, UNIQUEID, Asterisk, eagi
from asterisk_peer import Peer, run
from telephony_rig import WebRig
from tone_speech import encoded, say
from websocket_peers import MediaChannel, SpeechObject, vosk_module

from aii.protocols.codecs import CODECS
from aii.protocols.wrap import wav_header

FOLDER = EXAMPLES / "asterisk"
UNRESERVED = re.compile(r"[A-Za-z0-9._~!$'()*+;:@/?%-]*")
"""What ``chan_websocket`` lets stand in ``v()``."""

RATES = {0x10: 8_000, 0x12: 16_000}


def contexts(path: Path) -> dict[str, list[str]]:
    """The applications of each context's extension, in order; and the globals under "globals"."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in path.read_text().splitlines():
        line = line.partition(";")[0].strip() if line.lstrip().startswith(";") else line.strip()
        if header := re.fullmatch(r"\[([\w-]+)\]", line):
            name = header[1]
            found[name] = []
        elif line and name == "globals":
            found[name].append(line)
        elif line:
            step = re.fullmatch(r"(?:exten => [\w.]+,1|same => n),(.+)", line)
            assert step is not None, line
            found[name].append(step[1])
    return found


def configuration(name: str) -> ConfigParser:
    """One of Asterisk's other files."""
    parser = ConfigParser(delimiters=("=",), comment_prefixes=(";",), interpolation=None)
    parser.read(FOLDER / name)
    return parser


def split(text: str, separator: str = ",") -> list[str]:
    """At separators outside of brackets."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "({") - (character in ")}")
        if character == separator and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def arguments(text: str, most: int) -> list[str]:
    """An application's arguments as Asterisk cuts them: at most so many, the last one has the rest.

    A comma behind a backslash or within quotes or brackets cuts nothing; backslashes and quotes go.
    """
    found, depth, quoted, place = [""], 0, False, 0
    while place < len(text):
        character = text[place]
        depth += (character in "({[") - (character in ")}]")
        if character == "\\":
            place += 1
            found[-1] += text[place : place + 1]
        elif character == '"':
            quoted = not quoted
        elif character == "," and not depth and not quoted and len(found) < most:
            found.append("")
        else:
            found[-1] += character
        place += 1
    return found + [""] * (most - len(found))


class Channel:
    """A call that comes into a context.

    Args:
        rig: the servers.
        words: what the caller says.
        folder: stands for /tmp.
        exten: what was dialled.
        keys: what the caller keys before speaking.
    """

    def __init__(
        self, rig: WebRig, words: str, folder: Path, exten: str = "100", keys: str = ""
    ) -> None:
        self.rig = rig
        self.keys = keys
        self.words = words
        self.said: list[str] = []  # by Verbose
        self.variables = {"EXTEN": exten, "UNIQUEID": UNIQUEID, "CHANNEL": "PJSIP/alice-0001"}
        self.callee: Channel | None = None
        self.spies: list[threading.Thread] = []
        self._folder = folder
        self._plan = contexts(FOLDER / "extensions.conf")
        self._speech: SpeechObject | str | None = None
        self._at_end: list[str] = []
        self._waits = False  # aii was told to end the call, and the caller waits for that
        for line in self._plan["globals"]:
            name, _, value = line.partition("=")
            self.variables[name] = value

    # Substitution.

    def put_in(self, text: str) -> str:
        """``text`` with what stands in ``${}`` replaced, from the inside out."""
        while "${" in text:
            start = text.rindex("${")
            end = self._end(text, start)
            text = text[:start] + self._value(text[start + 2 : end]) + text[end + 1 :]
        return text

    def _end(self, text: str, start: int) -> int:
        return text.index("}", start)

    def _value(self, name: str) -> str:
        call = re.fullmatch(r"(\w+)\((.*)\)", name, re.DOTALL)
        if call is None:
            return self.variables.get(name, "")
        function, argument = call.groups()
        functions: dict[str, Callable[[str], str]] = {
            "UUID": lambda _: str(uuid.uuid4()),
            "URIENCODE": lambda text: quote(text, safe=""),
            "CALLERID": lambda _: "+49 30 1",
            "CURL": self._curl,
            "SPEECH_TEXT": lambda _: self.variables.get("speech", ""),
            "SPEECH_GRAMMAR": lambda _: self.variables.get("grammar", ""),
            "SPEECH_SCORE": lambda _: self.variables.get("score", ""),
        }
        return functions[function](argument)

    def _curl(self, argument: str) -> str:
        url, _, body = argument.partition(",")
        target = urlsplit(url)
        assert target.netloc == "127.0.0.1:8000"
        path = target.path + (f"?{target.query}" if target.query else "")
        self._waits = self._waits or "end_on=" in body
        method = "POST" if body else "GET"
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        status, answer = self.rig.request(method, path, body.encode() or None, **kind)
        assert status in (200, 201), answer
        text = str(answer["call_id"]) if isinstance(answer, dict) else str(answer or "")
        return text.rstrip()  # func_curl cuts what is blank at the end

    # Applications.

    def run(self, context: str) -> Channel:
        """Run a context to its end."""
        for step in self._plan[context]:
            application, _, rest = self.put_in(step).partition("(")
            getattr(self, "_" + application.lower())(rest.removesuffix(")"))
        return self.finish()

    def finish(self) -> Channel:
        """What happens when the call is over."""
        for spy in self.spies:
            spy.join(100)
        for command in self._at_end:
            subprocess.run(["sh", "-c", command], check=True, timeout=100)
        return self

    def _answer(self, _: str) -> None: ...

    _hangup = _return = _speechstart = _answer

    def _set(self, argument: str) -> None:
        name, _, value = argument.partition("=")
        if name.startswith("SPEECH_ENGINE("):
            assert isinstance(self._speech, SpeechObject)
            self._speech.setting(name.removeprefix("SPEECH_ENGINE(").removesuffix(")"), value)
        self.variables[name] = value

    def _verbose(self, argument: str) -> None:
        self.said.append(argument.partition(",")[2])

    def _audiosocket(self, argument: str) -> None:
        call, address = argument.split(",")
        self._audiosocket_call(call, address, 0x10)

    def _audiosocket_call(self, call: str, address: str, kind: int) -> None:
        assert address == "127.0.0.1:9092"
        rate = RATES[kind]
        audio = encoded(say(self.words), "s16", rate)
        peer = Peer(self.rig.audiosocket, audio, kind=kind, call=uuid.UUID(call))
        for key in self.keys:
            peer.key(key)
        until = float("inf") if self._waits else len(audio) + 4 * rate
        run([peer], lambda: peer.sent > until, tick=0.002)
        self.variables["end"] = peer.end
        assert peer.end in ("", "hangup"), peer.end
        peer.hang_up()

    def _dial(self, argument: str) -> None:
        target, *options = split(argument)
        technology, where, *rest = split(target, "/")
        if technology == "AudioSocket":
            kind = {"c(slin16)": 0x12, "c(slin)": 0x10}[rest[1]]
            self._audiosocket_call(rest[0], where, kind)
        elif technology == "WebSocket":
            self._websocket(where, "/".join(rest))
        elif options and (routine := re.fullmatch(r"U\(([\w-]+),(.*)\)", options[-1])):
            assert self.callee is not None
            self.callee.variables["ARG1"] = routine[2]
            self.callee.run(routine[1])

    def _websocket(self, connection: str, options: str) -> None:
        client = configuration("websocket_client.conf")[connection]
        assert (client["type"], client["protocols"]) == ("websocket_client", "media")
        given = dict(re.findall(r"([cfv])\(((?:[^()]|\([^()]*\))*)\)", options))
        for pair in given.get("v", "").split(","):
            assert UNRESERVED.fullmatch(pair.replace("=", "", 1)), pair
        query = dict(parse_qsl(given.get("v", "").replace(",", "&")))
        form = given.get("f", "plain-text")
        channel = MediaChannel(self._uri(client["uri"]), given["c"], form, **query)
        codec = CODECS[given["c"]]
        channel.play(encoded(say(self.words), codec.encoding, codec.rate))
        channel.hang_up()

    def _uri(self, uri: str) -> str:
        target = urlsplit(uri)
        assert (target.scheme, target.netloc) == ("ws", "127.0.0.1:8000")
        query = f"?{target.query}" if target.query else ""
        return self.rig.ws + target.path + query

    def _originate(self, argument: str) -> None:
        target, application, name, data, third, timeout, options = arguments(argument, 7)
        local = re.fullmatch(r"Local/(.+)@([\w-]+)/n", target)
        assert local is not None
        assert (application, name, third, timeout, options) == ("app", "ChanSpy", "", "", "a")
        spied, spying = arguments(data, 2)
        assert spied == self.variables["CHANNEL"]
        # Without q the spied channel's name is spelt out to the spy, without o both sides are
        # heard, without E the spy waits for ever when the call is over.
        assert set("qoE") <= set(spying)
        other = Channel(self.rig, self.words, self._folder, exten=local[1])
        self.spies.append(threading.Thread(target=other.run, args=(local[2],)))
        self.spies[-1].start()

    def _speechcreate(self, engine: str) -> None:
        if engine == "vosk":
            self._speech = configuration("res_speech_vosk.conf")["general"]["url"]
            return
        client = configuration("aeap.conf")[engine]
        assert (client["type"], client["protocol"]) == ("client", "speech_to_text")
        codec = client["codecs"].removeprefix("!all,")
        params = {key[1:]: value for key, value in client.items() if key.startswith("@")}
        self._speech = SpeechObject(self._uri(client["url"]), codec, **params)

    def _speechbackground(self, argument: str) -> None:
        assert float(argument.split(",")[1]) > 0
        if isinstance(self._speech, str):
            audio = encoded(say(self.words), "s16", 8_000)
            self.variables["speech"] = vosk_module(self._uri(self._speech), audio)
            return
        assert self._speech is not None
        codec = self._speech.codec
        self._speech.background(encoded(say(self.words), codec.encoding, codec.rate))
        text, score = self._speech.texts[-1]
        self.variables |= {"speech": text, "score": str(score), "grammar": self._speech.grammar}

    def _speechdestroy(self, _: str) -> None:
        if isinstance(self._speech, SpeechObject):
            self._speech.destroy()

    def _eagi(self, argument: str) -> None:
        script, seconds = argument.split(",")
        assert script == "aii-eagi.py"
        name = self.variables.get("EAGI_AUDIO_FORMAT", "")
        rate = {"": 8_000, "slin16": 16_000}[name]
        audio = encoded(say(self.words), "s16", rate)
        channel = {"EAGI_AUDIO_FORMAT": name} if name else {}
        script_run = eagi(self.rig.tcp, rate, seconds, feed=audio, hang_up=True, **channel)
        self.variables |= script_run.variables

    def _record(self, argument: str) -> None:
        path = self._path(argument.split(",")[0])
        audio = encoded(say(self.words), "s16", 8_000)
        path.write_bytes(wav_header(8_000, len(audio)) + audio)

    def _agi(self, argument: str) -> None:
        script, path = argument.split(",")
        host, port = self.rig.tcp
        asterisk = Asterisk(script, str(self._path(path)), host, str(port))
        assert asterisk.run() == 0
        self.variables |= asterisk.variables

    def _mixmonitor(self, argument: str) -> None:
        path, _, command = argument.split(",", 2)
        self._record(path)
        host, port = self.rig.tcp
        command = command.replace("127.0.0.1 8300", f"{host} {port}")
        self._at_end.append(command.replace("/tmp/", f"{self._folder}/"))

    def _path(self, path: str) -> Path:
        assert path.startswith("/tmp/")
        return self._folder / path.removeprefix("/tmp/")
