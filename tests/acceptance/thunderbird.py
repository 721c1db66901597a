"""Thunderbird for the acceptance tests: a profile with accounts, a screen that nobody sees, control by Marionette."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

from tests.acceptance.server import Account, Pillarbox, eventually
from tests.support.marionette import Marionette, ScriptFailed, port_of

SECONDS = 120
"""How long anything may take on a busy machine."""
_SCRIPT = Path(__file__).with_suffix(".js")
_TLS, _STARTTLS = 3, 2  # nsMsgSocketType
_PASSWORD = 3  # nsMsgAuthMethod.passwordCleartext

_QUIET: dict[str, Any] = {
    "app.update.enabled": False,
    "browser.cache.disk.enable": False,
    "calendar.timezone.local": "UTC",
    "datareporting.policy.dataSubmissionEnabled": False,
    "dom.ipc.processCount": 1,
    "dom.ipc.processPrelaunch.enabled": False,
    "extensions.update.enabled": False,
    "mail.biff.play_sound": False,
    "mail.biff.show_alert": False,
    "mail.provider.suppress_dialog_on_startup": True,
    "mail.shell.checkDefaultClient": False,
    "mail.spotlight.firstRunDone": True,
    "mailnews.start_page.enabled": False,
    "marionette.port": 0,  # any that is free
    "network.connectivity-service.enabled": False,
    "network.captive-portal-service.enabled": False,
    "network.dns.disableIPv6": True,
    "services.settings.server": "data:,",
    "toolkit.telemetry.enabled": False,
}


class Thunderbird:
    """Runs with two accounts: `tls` by the ports 993 and 465, `starttls` by 143 and 587."""

    def __init__(self, home: Path, server: Pillarbox, tls: Account, starttls: Account) -> None:
        self._home = home
        self._server = server
        self._accounts = {1: (tls, 993, 465, _TLS), 2: (starttls, 143, 587, _STARTTLS)}
        self._profile = home / "profile"
        self._processes: list[subprocess.Popen[bytes]] = []
        self._marionette: Marionette | None = None

    def start(self, thunderbird: str, xvfb: str) -> None:
        self._profile.mkdir()
        settings = _QUIET | self._account_settings()
        (self._profile / "user.js").write_text("".join(_line(name, value) for name, value in settings.items()))
        command = [thunderbird, "--marionette", "--remote-allow-system-access", "--no-remote"]
        self._run([*command, "--profile", str(self._profile)], DISPLAY=self._screen(xvfb))
        eventually(self._listens, SECONDS, "Thunderbird listens")
        port = port_of(self._profile)
        assert port is not None
        self._marionette = Marionette(port, SECONDS)
        self._marionette.run(_SCRIPT.read_text())
        ports = [self._server.port(standard) for standard in (993, 465, 143, 587)]
        self.ask("trust", self._server.certificate.read_text(), ports)
        for account, *_ in self._accounts.values():
            self.ask("remember", account.address, account.password)

    def ask(self, name: str, *words: Any) -> Any:
        """What this function of thunderbird.js returns."""
        assert self._marionette is not None
        try:
            return self._marionette.run("return globalThis.tests[args[0]](...args[1]);", name, list(words))
        except ScriptFailed as failure:
            failure.add_note("\n".join(self.commands()[-40:]))
            raise

    def commands(self) -> list[str]:
        """The IMAP commands and answers that went over the wire, without what was in literals."""
        log = "".join(path.read_text("utf-8", "replace") for path in sorted(self._home.glob("imap.log*")))
        return re.findall(r"(?:SendData: |CreateNewLineFromSocket: )(.*)", log)

    def end(self) -> None:
        """However it is, it ends, with all its processes."""
        if self._marionette is not None:
            self._marionette.close()
        for process in reversed(self._processes):
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait(timeout=30)

    def _listens(self) -> bool:
        status = self._processes[-1].poll()
        assert status is None, f"Thunderbird ended with {status}: {self._said()}"
        return port_of(self._profile) is not None

    def _said(self) -> str:
        return (self._home / "said").read_text(errors="replace")[-3000:]

    def _screen(self, xvfb: str) -> str:
        """The name of a display of its own."""
        ours, theirs = os.pipe()
        try:
            self._run([xvfb, "-displayfd", str(theirs), "-screen", "0", "1024x768x24"], pass_fds=(theirs,))
        finally:
            os.close(theirs)
        with os.fdopen(ours) as numbers:
            number = numbers.readline().strip()
        assert number, f"Xvfb did not start: {self._said()}"
        return f":{number}"

    def _run(self, command: list[str], pass_fds: tuple[int, ...] = (), **environment: str) -> None:
        own = {
            "HOME": str(self._home),
            "TMPDIR": str(self._home),
            "XDG_RUNTIME_DIR": str(self._home),
            "MOZ_LOG": "IMAP:4,sync,timestamp",
            "MOZ_LOG_FILE": str(self._home / "imap.log"),
            "MOZ_CRASHREPORTER_DISABLE": "1",
            "LC_ALL": "C.UTF-8",
        }
        with (self._home / "said").open("ab") as said:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,
                pass_fds=pass_fds,
                cwd=self._home,
                env={**os.environ, **own, **environment},
            )
        self._processes.append(process)

    def _account_settings(self) -> dict[str, Any]:
        numbers = list(self._accounts)
        settings: dict[str, Any] = {
            "mail.accountmanager.accounts": ",".join(f"account{n}" for n in numbers),
            "mail.accountmanager.defaultaccount": "account1",
            "mail.smtpservers": ",".join(f"smtp{n}" for n in numbers),
            "mail.smtp.defaultserver": "smtp1",
        }
        for number in numbers:
            settings |= self._one_account(number)
        return settings

    def _one_account(self, number: int) -> dict[str, Any]:
        account, imap, submission, security = self._accounts[number]
        incoming = {
            "type": "imap",
            "hostname": "localhost",
            "port": self._server.port(imap),
            "userName": account.address,
            "name": account.address,
            "socketType": security,
            "authMethod": _PASSWORD,
            "login_at_startup": False,  # there is no password yet
            "use_condstore": True,
            "max_cached_connections": 12,  # none is taken from the INBOX for another folder
        }
        outgoing = {
            "hostname": "localhost",
            "port": self._server.port(submission),
            "username": account.address,
            "try_ssl": security,
            "authMethod": _PASSWORD,
        }
        folders = f"imap://{account.address.replace('@', '%40')}@localhost"
        identity = {
            "useremail": account.address,
            "fullName": "A Person",
            "valid": True,
            "smtpServer": f"smtp{number}",
            "fcc_folder": f"{folders}/Sent",
            "draft_folder": f"{folders}/Drafts",
        }
        return {
            f"mail.account.account{number}.server": f"server{number}",
            f"mail.account.account{number}.identities": f"id{number}",
            **{f"mail.server.server{number}.{name}": value for name, value in incoming.items()},
            **{f"mail.smtpserver.smtp{number}.{name}": value for name, value in outgoing.items()},
            **{f"mail.identity.id{number}.{name}": value for name, value in identity.items()},
        }


def _line(name: str, value: Any) -> str:
    text = str(value).lower() if isinstance(value, bool) else value if isinstance(value, int) else f'"{value}"'
    return f'user_pref("{name}", {text});\n'
