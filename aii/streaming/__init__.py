"""One call's audio to events: pure values in and out; no sockets, threads, clocks or torch.

events.py            what happens in a call
settings.py          how a call is heard; factory.py makes its session of that
session.py           one call: audio, policy, counters
policy.py            the interface of a policy: when to decode, what to commit
window.py            the policy of the raw TCP server: 5 s windows, final at 30 s
local_agreement.py   final is what two updates in a row hear; agreement.py compares them
alignatt.py          final is what the model has finished listening to
updates.py           what the last two share; pace.py tells whether the engine keeps up
guards.py            against text that nobody spoke
drafts.py            the answer before, as a draft of the next; vocabulary.py knows its tokens
utterances.py        what a policy hears where voice activity is watched (voice.py, endpointing.py)
collect.py           answers to questions; arrivals.py tells when a call sends nothing
redaction.py         masks digits
"""
