"""Postfix handing to Dovecot by LMTP: the pair that a user would otherwise install.

Both run as instances of their own: configuration, queue, mail and sockets in the run's directory, on loopback ports;
nothing of an installed service is touched. Durability stays at the defaults (Postfix fsyncs its queue file before
`250`, and keeps it until the next server has the message; Dovecot's `mail_fsync` is `optimized`); only limits on
connections are raised. Starting them needs root.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from benchmark.certificate import write_certificate
from benchmark.errors import BenchError, NotAvailable
from benchmark.ports import LOOPBACK, free_port, wait_for_port
from benchmark.servers import ADDRESSES, DOMAIN, PASSWORD, REMOTE, USERS, Server, output_of

_PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
_MAIL_UID = 64_917  # owns the mail; Dovecot takes a number without an account of that name

_DOVECOT = """
base_dir = {home}/run
state_dir = {home}/run
log_path = {home}/dovecot.log
protocols = imap lmtp
listen = {host}
mail_location = {location}
mail_uid = {uid}
mail_gid = {uid}
first_valid_uid = 100
first_valid_gid = 100
disable_plaintext_auth = no
auth_username_format = %Ln
ssl = yes
ssl_cert = <{home}/tls.crt
ssl_key = <{home}/tls.key
mail_max_userip_connections = 5000
default_client_limit = 8000
passdb {{
  driver = passwd-file
  args = scheme=PLAIN username_format=%Ln {home}/users
}}
userdb {{
  driver = static
  args = uid={uid} gid={uid} home={home}/mail/%Ln
}}
service imap-login {{
  inet_listener imap {{
    port = {imap}
  }}
  inet_listener imaps {{
    port = 0
  }}
}}
service imap {{
  process_limit = 4096
}}
service lmtp {{
  inet_listener lmtp {{
    address = {host}
    port = {lmtp}
  }}
}}
service anvil {{
  client_limit = 10000
}}
service auth {{
  client_limit = 10000
}}
service stats {{
  client_limit = 10000
}}
"""

_POSTFIX = """
compatibility_level = 3.6
queue_directory = {home}/queue
data_directory = {home}/state
command_directory = {sbin}
daemon_directory = {daemons}
mail_owner = postfix
setgid_group = postdrop
myhostname = bench.example.test
mydestination =
alias_maps =
alias_database =
inet_interfaces = {host}
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
smtpd_recipient_restrictions = permit_mynetworks, reject
virtual_mailbox_domains = {domain}
virtual_mailbox_maps = hash:{home}/vmailbox
virtual_transport = lmtp:inet:{host}:{lmtp}
transport_maps = inline:{{ {{ {remote} = smtp:[{host}]:{sink} }} }}
message_size_limit = 52428800
mailbox_size_limit = 0
virtual_mailbox_limit = 0
"""

_MASTER = """
{host}:{smtp} inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
proxywrite unix - - n - 1 proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
local unix - n n - - local
virtual unix - n n - - virtual
lmtp unix - - n - - lmtp
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""


class PostfixDovecot(Server):
    """The pair with one of Dovecot's mailbox formats."""

    location: str
    relays = True

    def start(self) -> None:
        for program in ("postfix", "dovecot", "postmap", "postconf"):
            if not shutil.which(program, path=_PATH):
                raise NotAvailable(f"{program} is not installed (apt-get install postfix dovecot-imapd dovecot-lmtpd)")
        if os.geteuid() != 0:
            raise NotAvailable("starting Postfix and Dovecot needs root")
        self.directory.mkdir(mode=0o755)
        self.smtp_port, self.imap_port, lmtp = free_port(), free_port(), free_port()
        self.submission_port = self.smtp_port
        self._start_dovecot(lmtp)
        self._start_postfix(lmtp)
        wait_for_port(self.imap_port, 20)
        wait_for_port(self.smtp_port, 20)

    def _start_dovecot(self, lmtp: int) -> None:
        home = self.directory
        write_certificate(home / "tls.crt", home / "tls.key")
        (home / "users").write_text("".join(f"{user}:{{PLAIN}}{PASSWORD}::::::\n" for user in USERS))
        (home / "mail").mkdir()
        os.chown(home / "mail", _MAIL_UID, _MAIL_UID)
        values = {"home": home, "host": LOOPBACK, "uid": _MAIL_UID, "imap": self.imap_port, "lmtp": lmtp}
        (home / "dovecot.conf").write_text(_DOVECOT.format(location=self.location, **values))
        command = [_found("dovecot"), "-F", "-c", str(home / "dovecot.conf")]
        self.meter.launch(command, log=home / "dovecot.out")

    def _start_postfix(self, lmtp: int) -> None:
        home = self.directory / "postfix"
        home.mkdir(mode=0o755)
        (home / "state").mkdir()
        shutil.chown(home / "state", "postfix")
        (home / "queue").mkdir()
        values = {"home": home, "host": LOOPBACK, "domain": DOMAIN, "smtp": self.smtp_port, "lmtp": lmtp}
        values |= {"remote": REMOTE, "sink": self.sink_port}
        places = {"sbin": _postfix_setting("command_directory"), "daemons": _postfix_setting("daemon_directory")}
        (home / "main.cf").write_text(_POSTFIX.format(**values, **places))
        (home / "master.cf").write_text(_MASTER.format(**values))
        (home / "vmailbox").write_text("".join(f"{address} x\n" for address in ADDRESSES))
        output_of([_found("postmap"), "-c", str(home), f"hash:{home}/vmailbox"])
        process = self.meter.launch([_found("postfix"), "-c", str(home), "start"], log=home / "postfix.out")
        try:
            if process.wait(timeout=60):
                raise BenchError(f"postfix start: {(home / 'postfix.out').read_text(errors='replace').strip()[-500:]}")
        except subprocess.TimeoutExpired as error:
            raise BenchError("postfix start did not end") from error
        self.meter.adopt(int((home / "queue/pid/master.pid").read_text()))

    def version(self) -> str:
        postfix = output_of([_found("postconf"), "-h", "mail_version"])
        return f"Postfix {postfix}, Dovecot {output_of([_found('dovecot'), '--version']).split()[0]}"


class PostfixDovecotMaildir(PostfixDovecot):
    label = "maildir"
    title = "Postfix+Dovecot maildir"
    location = "maildir:~/Maildir"


class PostfixDovecotMdbox(PostfixDovecot):
    label = "mdbox"
    title = "Postfix+Dovecot mdbox"
    location = "mdbox:~/mdbox"


def _found(program: str) -> str:
    return shutil.which(program, path=_PATH) or program


def _postfix_setting(name: str) -> Path:
    return Path(output_of([_found("postconf"), "-d", "-h", name]))
