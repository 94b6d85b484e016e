"""`vt` and the user's shell: aliases, functions, arguments to the byte, keys, exit codes."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vt.harness import Home, Result, Terminal, eventually

POSIX = ["bash", "zsh", "dash", "ksh"]
WITH_FUNCTIONS = [*POSIX, "fish"]
SHELLS = [*WITH_FUNCTIONS, "tcsh"]

# What people put into their files, and a guard as in Debian's ~/.bashrc.
POSIX_RC = """\
case $- in *i*) ;; *) return ;; esac
echo read >>"$HOME/rc_was_read"
alias sh='echo the alias of a program'
alias show_alias='"$HOME/show"'
alias nap='"$SLEEP" 60'
alias seven='exit 7'
show_function() { "$HOME/show" "$@"; return 5; }
loop() { echo looping; while :; do "$HOME/show" in loop; "$SLEEP" 5; done; }
"""
FISH_RC = """\
if status is-interactive
    echo read >>$HOME/rc_was_read
    alias show_alias '"$HOME/show"'
    alias nap 'sleep 60'
    alias seven 'exit 7'
end
function show_function; $HOME/show $argv; return 5; end
function loop; echo looping; while true; $HOME/show in loop; sleep 5; end; end
"""
TCSH_RC = """\
echo read >>"$HOME/rc_was_read"
alias show_alias '"$HOME/show"'
alias nap 'sleep 60'
alias seven 'exit 7'
"""

ODD: list[bytes] = [
    b"a b",
    b"",
    b"it's",
    b'"quoted"',
    b"$(touch pwned)",
    b"`touch pwned`",
    b"; touch pwned",
    b"*",
    b"~",
    b"-n",
    b"--",
    b"--help",
    b"-S",
    b"new\nline",
    b"\n",
    b"ends in\n",
    b"\t",
    b"back\\slash\\",
    b"\\n",
    b"!!",
    b"!$",
    b"#",
    b"&",
    b"|",
    b">pwned",
    b"{a,b}",
    b"$HOME",
    b"[a-z]?",
    b"^x^y",
    b"=ls",
    b"%1",
    "é€😀".encode(),
    b"caf\xe9 \xff",
    b"\x01\x1b[31m\x7f",
    b"",
]


@pytest.fixture
def home(need: Callable[[str], str]) -> Iterator[Home]:
    home = Home([need("vt")])
    (home.path / ".config/fish").mkdir(parents=True)
    for name, text in (
        (".bashrc", POSIX_RC),
        (".zshrc", POSIX_RC),
        (".shrc", POSIX_RC),
        (".tcshrc", TCSH_RC),
        (".config/fish/config.fish", FISH_RC),
    ):
        (home.path / name).write_text(text)
    home.env["SLEEP"] = shutil.which("sleep") or ""  # ksh has one built in
    home.env["ENV"] = str(home.path / ".shrc")
    # Writes down its arguments, each with a zero byte after it.
    show = home.path / "show"
    show.write_text('#!/bin/sh\nprintf \'%s\\0\' "$@" >"$HOME/shown"\n')
    show.chmod(0o755)
    yield home
    home.close()


def shown(home: Home) -> list[bytes]:
    return (home.path / "shown").read_bytes().split(b"\0")[:-1]


def through(need: Callable[[str], str], shell: str) -> dict[str, str]:
    """The environment of somebody with this shell."""
    return {"SHELL": need(shell)}


def untouched(home: Home) -> bool:
    return os.listdir(home.work) == []


@pytest.mark.parametrize("shell", SHELLS)
def test_an_alias_gets_every_argument_to_the_byte(home: Home, need, shell: str) -> None:
    done = home.run("show_alias", *ODD, env=through(need, shell))
    assert shown(home) == ODD, done
    assert done.code == 0
    assert untouched(home)


@pytest.mark.parametrize("shell", WITH_FUNCTIONS)
def test_a_function_gets_every_argument_and_ends_with_its_code(
    home: Home, need, shell: str
) -> None:
    done = home.run("show_function", *ODD, env=through(need, shell))
    assert shown(home) == ODD, done
    assert done.code == 5
    assert untouched(home)


@pytest.mark.parametrize("flags", [(), ("-S",), ("--no-shell-wrap",)])
def test_a_program_gets_every_argument_to_the_byte(home: Home, flags: tuple[str, ...]) -> None:
    done = home.run(home.path / "show", *ODD, flags=flags)
    assert shown(home) == ODD, done
    assert home.last.info["command"][0] == str(home.path / "show")
    assert untouched(home)


def test_more_arguments_than_a_shell_could_quote_in_one_word(home: Home, need) -> None:
    many = [f"file {number}".encode() for number in range(20_000)]
    home.run("show_alias", *many, env=through(need, "bash"))
    assert shown(home) == many


@pytest.mark.parametrize("shell", WITH_FUNCTIONS)
def test_a_builtin(home: Home, need, shell: str) -> None:
    done = home.run("eval", "echo one; exit 3", env=through(need, shell))
    assert done.out.replace(b"exit\r\n", b"") == b"one\r\n"  # bash says that it exits
    assert done.code == 3


@pytest.mark.parametrize("shell", ["bash", "zsh", "ksh"])
def test_a_keyword(home: Home, need, shell: str) -> None:
    path = home.path / "bin"
    path.mkdir()
    (path / "sleep").symlink_to(shutil.which("sleep") or "")
    for program in ("sh", "mktemp", "rm", "readlink"):
        (path / program).symlink_to(shutil.which(program) or "")
    # No /usr/bin/time on this PATH.
    env = {**through(need, shell), "PATH": str(path)}
    done = home.run("time", "sleep", "0", env=env)
    assert done.code == 0
    assert b"real" in done.out or b"total" in done.out


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    "word", ["touch pwned; true", "touch\npwned", "$(touch pwned)", "a>pwned", "-x", "", "no such"]
)
def test_a_word_is_never_read_as_shell_text(home: Home, need, shell: str, word: str) -> None:
    done = home.run(word, "argument", env=through(need, shell))
    assert done.code in (1, 123, 126, 127), done
    assert done.out, "the reason is shown, and so recorded"
    assert untouched(home)


@pytest.mark.parametrize("shell", SHELLS)
def test_a_command_that_nobody_knows(home: Home, need, shell: str) -> None:
    done = home.run("no-such-command", env=through(need, shell))
    assert done.code == (1 if shell == "tcsh" else 127)
    assert b"no-such-command" in done.out
    assert "no-such-command" in home.last.recording().text()


@pytest.mark.parametrize("shell", ["bash", "fish"])
def test_a_program_on_path_starts_without_the_shell(home: Home, need, shell: str) -> None:
    done = home.run("sh", "-c", "exit 4", env=through(need, shell))
    assert done.code == 4
    assert home.last.info["command"] == ["sh", "-c", "exit 4"]
    assert not (home.path / "rc_was_read").exists()


@pytest.mark.parametrize("shell", POSIX)
def test_with_shell_wrap_an_alias_comes_before_the_program(home: Home, need, shell: str) -> None:
    done = home.run("sh", "x", flags=("--shell-wrap",), env=through(need, shell))
    assert (done.code, done.out) == (0, b"the alias of a program x\r\n")
    assert home.run("cat", "/dev/null", flags=("--shell-wrap",), env=through(need, shell)).code == 0


def test_without_shell_wrap_an_alias_is_not_found(home: Home, need) -> None:
    done = home.run("show_alias", flags=("-S",), env=through(need, "bash"))
    assert done.code == 127
    assert not (home.path / "rc_was_read").exists()


@pytest.mark.parametrize("shell", SHELLS)
def test_exit_codes(home: Home, need, shell: str) -> None:
    assert home.run("seven", env=through(need, shell)).code == 7


def test_the_session_is_named_after_the_word(home: Home, need) -> None:
    home.run("seven", env=through(need, "zsh"))
    assert home.last.info["name"] == "seven (~/work)"
    home.run("seven", env=through(need, "fish"), cwd="/")
    assert home.last.info["name"] == "seven (/)"
    home.run("seven", flags=("--name", "mine"), env=through(need, "bash"))
    assert home.last.info["name"] == "mine"
    home.run("sh", "-c", "exit")
    assert home.last.info["name"] == "sh (~/work)"


@pytest.mark.parametrize("shell", SHELLS)
def test_ctrl_c_ends_the_program_of_an_alias(home: Home, need, shell: str) -> None:
    terminal = home.terminal("nap", env=through(need, shell))
    terminal.session.wait()
    eventually(lambda: running(terminal.session.info["pid"], "sleep"), what="the alias's program")
    terminal.send(b"\x03")
    code = 1 if shell == "tcsh" else 130  # csh's own code
    assert terminal.wait(5) == code
    assert terminal.restored()
    assert terminal.session.info["exitCode"] == code


@pytest.mark.parametrize("shell", WITH_FUNCTIONS)
def test_ctrl_c_ends_a_functions_loop(home: Home, need, shell: str) -> None:
    terminal = home.terminal("loop", env=through(need, shell))
    terminal.expect(b"looping")
    eventually((home.path / "shown").exists)
    time.sleep(0.1)
    terminal.send(b"\x03")
    assert terminal.wait(5) == 130
    assert terminal.restored()


@pytest.mark.parametrize("shell", SHELLS)
def test_ctrl_z_does_not_end_the_session(home: Home, need, shell: str) -> None:
    terminal = home.terminal("nap", env=through(need, shell))
    terminal.session.wait()
    leader = terminal.session.info["pid"]
    eventually(lambda: running(leader, "sleep"), what="the alias's program")
    terminal.send(b"\x1a")
    with pytest.raises(AssertionError):
        eventually(lambda: not running(leader, "sleep", "RS"), 0.3)
    terminal.send(b"\x03")
    assert terminal.wait(5) == (1 if shell == "tcsh" else 130)


@pytest.mark.parametrize("shell", SHELLS)
def test_sigterm_to_vt_ends_the_program_of_an_alias(home: Home, need, shell: str) -> None:
    terminal = home.terminal("nap", env=through(need, shell))
    terminal.session.wait()
    leader = terminal.session.info["pid"]
    eventually(lambda: running(leader, "sleep"), what="the alias's program")
    terminal.signal(15)
    assert terminal.wait(5) == 143
    assert terminal.restored()
    assert not running(leader, "sleep")


def running(session: int, name: str, states: str = "RSDT") -> bool:
    """Whether a program of this name runs in the session with that leader."""
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            stat = entry.read_text()
        except OSError:
            continue
        called, _, rest = stat.partition("(")[2].rpartition(") ")
        fields = rest.split()
        if called == name and int(fields[3]) == session and fields[0] in states:
            return True
    return False


def test_bash_without_a_bashrc_has_the_aliases_of_a_login_shell(home: Home, need) -> None:
    (home.path / ".bashrc").rename(home.path / ".bash_profile")
    assert home.run("seven", env=through(need, "bash")).code == 7


def test_a_function_that_bash_exports(home: Home, need) -> None:
    text = f"""deploy() {{ "$HOME/show" deployed "$@"; }}; export -f deploy
        "{home.command[0]}" --session-id x deploy "it's here"; exit $?"""
    done = subprocess.run(
        [need("bash"), "-c", text], env={**home.env, **through(need, "bash")}, cwd=home.work
    )
    assert done.returncode == 0
    assert shown(home) == [b"deployed", b"it's here"]


def test_zsh_without_any_file_of_its_own_asks_nothing(home: Home, need) -> None:
    (home.path / ".zshrc").unlink()
    terminal = home.terminal("eval", "echo in zsh $ZSH_NAME", env=through(need, "zsh"))
    assert terminal.wait(10) == 0
    assert terminal.output == b"in zsh zsh\r\n"


def test_a_shell_that_vt_does_not_know_is_named_with_the_cure(home: Home) -> None:
    done = home.run("gs", env={"SHELL": "/usr/bin/nu"})
    assert done.code == 1
    assert b"gs is no program on PATH" in done.err
    assert b"/usr/bin/nu" in done.err
    assert b"vt nu -c COMMAND" in done.err
    assert home.sessions() == []


def test_without_a_shell_variable_it_is_sh(home: Home) -> None:
    del home.env["SHELL"]
    assert home.run("eval", "exit 9").code == 9


@pytest.mark.parametrize("flag", ["-i", "--shell"])
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_users_shell_itself(home: Home, need, shell: str, flag: str) -> None:
    done: Result = home.cli("--session-id", "x", flag, "-c", "exit 6", env=through(need, shell))
    assert done.code == 6
    assert home.session("x").info["command"] == [need(shell), "-c", "exit 6"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_typed_at_a_prompt(home: Home, need, shell: str) -> None:
    """As people use it: their own shell in front, vt as its job in the foreground."""
    env = {**home.env, **through(need, shell), "PS1": "$ ", "PROMPT": "$ "}
    code = "$status" if shell == "fish" else "$?"
    terminal = Terminal([need(shell), "-i"], env=env, cwd=home.work, size=(200, 30))
    home.running.append(terminal)

    def typed(line: str, shows: str) -> None:
        time.sleep(0.1)  # the line editor takes the terminal back
        terminal.send(line.encode() + b"\r")
        terminal.expect(shows.encode(), after=terminal.mark())

    typed("stty -g >~/before; echo rea''dy", "ready")
    typed(f"vt show_alias 'it is' '' \"a*\" '$(x)'; echo ali''as={code}", "alias=0")
    assert shown(home) == [b"it is", b"", b"a*", b"$(x)"]
    typed(f"vt show_function -- 'ü'; echo func''tion={code}", "function=5")
    assert shown(home) == [b"--", "ü".encode()]
    typed(f"vt sh -c 'kill -9 $$'; echo kil''led={code}", "killed=137")
    mark = terminal.mark()
    terminal.send(f"vt -S sleep 60; echo af''ter={code}\r".encode())
    eventually(lambda: any(s.info["command"] == ["sleep", "60"] for s in home.sessions()))
    time.sleep(0.1)
    terminal.send(b"\x03")
    terminal.expect(b"after=130", after=mark)
    typed("stty -g >~/after; echo sti''ll here", "still here")
    assert (home.path / "after").read_text() == (home.path / "before").read_text()
    terminal.send(b"exit\r")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_on_a_terminal(home: Home, need, shell: str) -> None:
    home.command = [*home.command, "-i"]
    home._argv = lambda session_id, flags, command: [*home.command, *command]  # type: ignore[method-assign]
    env = {**through(need, shell), "PS1": "$ "}
    terminal = home.terminal(env=env)
    terminal.send(b"show_alias 'x y'; exit 3\r")
    assert terminal.wait(10) == 3
    assert shown(home) == [b"x y"]
    assert terminal.restored()
