#!/bin/sh
# Ways to send audio to aii's TCP port without a PBX. Each is one line; run what you need:
#
#     sh examples/pipes.sh recording.wav [HOST [PORT]]
#
# -N makes netcat half-close at the end of its input, which says "that was all, now answer".
set -eu
recording=${1:?usage: pipes.sh RECORDING.wav [HOST [PORT]]}
host=${2:-127.0.0.1}
port=${3:-8300}

# A WAV file as it is: its header says rate and format.
nc -N "$host" "$port" <"$recording"

# With a call id before it.
(printf 'call-42\r'; cat "$recording") | nc -N "$host" "$port"

# sox: any format that it reads, as raw SLIN at 16 kHz.
sox "$recording" -t raw -r 16000 -e signed -b 16 -c 1 - | nc -N "$host" "$port"

# sox: the same as a WAV stream at 8 kHz in mu-law, as it is on the line.
sox "$recording" -t wav -r 8000 -e mu-law -c 1 - | nc -N "$host" "$port"

# ffmpeg: any format at all.
ffmpeg -loglevel error -i "$recording" -f s16le -ac 1 -ar 16000 - | nc -N "$host" "$port"
