"""Tests of vibetunnel-fwd from the outside: test_a1 to test_a11 are the contract's sections, line
by line; the others put load, real programs and real players on it. The real VibeTunnel server is in
tests/interop. These variables make the same tests larger, or run them against something else:

VT_OUTPUT_MB       mixed output that must come through whole (10)
VT_STORM_SCRIPTS   random scripts of frames by eight clients (1000)
VT_KILLS           forwarders killed at random moments (10)
VT_SESSIONS        sessions at once from one Python process (100)
VT_BEHIND_MB       what a session has written before somebody attaches to it (50)
VT_SCREENS         random programs whose screen is compared with that of tmux (100)
VT_FORWARDER       another forwarder's command, for example "node .../dist/vibetunnel-cli fwd"
"""
