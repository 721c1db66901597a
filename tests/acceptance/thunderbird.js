// What the tests ask of Thunderbird, by the interfaces that its own windows use. Run once inside it; `tests` stays.
//
// A user is the address of an account; a path is the names of folders with "/" between them, INBOX as on the server; a
// message is named by its UID. Actions of Thunderbird end with a notice or with none at all: those with one return a
// promise of it, the others return at once and the caller looks for the effect.

const { MailServices } = ChromeUtils.importESModule("resource:///modules/MailServices.sys.mjs");
const F = Ci.nsMsgFolderFlags;

function serverOf(user) {
  return MailServices.accounts.findServer(user, "localhost", "imap");
}

function pathOf(folder) {
  const name = folder.getFlag(F.Inbox) ? "INBOX" : folder.name;
  return folder.parent && !folder.parent.isServer ? `${pathOf(folder.parent)}/${name}` : name;
}

function foldersOf(user) {
  return serverOf(user).rootFolder.descendants;
}

function folderOf(user, path) {
  const found = foldersOf(user).find(folder => pathOf(folder) === path);
  if (!found) {
    throw new Error(`no folder ${path}`);
  }
  return found;
}

function messageOf(folder, uid) {
  const found = folder.msgDatabase.getMsgHdrForKey(uid);
  if (!found) {
    throw new Error(`no message ${uid}`);
  }
  return found;
}

function messagesOf(folder, uids) {
  return uids.map(uid => messageOf(folder, uid));
}

function check(status, what) {
  if (!Components.isSuccessCode(status)) {
    throw new Error(`${what}: 0x${status.toString(16)}`);
  }
}

// action(listener) begins something that ends with OnStopRunningUrl.
function urlDone(what, action) {
  const { promise, resolve } = Promise.withResolvers();
  action({
    QueryInterface: ChromeUtils.generateQI(["nsIUrlListener"]),
    OnStartRunningUrl() {},
    OnStopRunningUrl(url, status) {
      resolve(status);
    },
  });
  return promise.then(status => check(status, what));
}

// action(listener) begins something that ends with onStopCopy.
function copyDone(what, action) {
  const { promise, resolve } = Promise.withResolvers();
  action({
    QueryInterface: ChromeUtils.generateQI(["nsIMsgCopyServiceListener"]),
    onStartCopy() {},
    onProgress() {},
    setMessageKey() {},
    getMessageId() {
      return null;
    },
    onStopCopy(status) {
      resolve(status);
    },
  });
  return promise.then(status => check(status, what));
}

globalThis.tests = {
  // Confirms the exception for a certificate and keeps the passwords, as the user would in two windows.
  async trust(pem, ports) {
    const base64 = pem.replace(/-----[^-]+-----|\s/g, "");
    const database = Cc["@mozilla.org/security/x509certdb;1"].getService(Ci.nsIX509CertDB);
    const overrides = Cc["@mozilla.org/security/certoverride;1"].getService(Ci.nsICertOverrideService);
    const certificate = database.constructX509FromBase64(base64);
    for (const port of ports) {
      overrides.rememberValidityOverride("localhost", port, {}, certificate, false);
    }
  },

  async remember(user, password) {
    for (const scheme of ["imap", "smtp"]) {
      const origin = `${scheme}://localhost`;
      const login = Cc["@mozilla.org/login-manager/loginInfo;1"].createInstance(Ci.nsILoginInfo);
      login.init(origin, null, origin, user, password, "", "");
      await Services.logins.addLoginAsync(login);
    }
  },

  // Logs in and learns the folders.
  discover(user) {
    return urlDone("discover", listener => MailServices.imap.discoverAllFolders(serverOf(user).rootFolder, listener, null));
  },

  folders(user) {
    const kinds = { Inbox: F.Inbox, Drafts: F.Drafts, Sent: F.SentMail, Trash: F.Trash, Junk: F.Junk, Archive: F.Archive };
    return Object.fromEntries(
      foldersOf(user).map(folder => [
        pathOf(folder),
        Object.keys(kinds).find(kind => folder.getFlag(kinds[kind])) ?? "",
      ])
    );
  },

  // Begins to bring Thunderbird's database of the folder up to date, as opening it does.
  async update(user, path) {
    folderOf(user, path).updateFolder(null);
  },

  // Ends all connections; the next thing that is asked for makes new ones.
  async disconnect(user) {
    serverOf(user).closeCachedConnections();
  },

  // What Thunderbird's database holds, by UID; it asks nobody.
  messages(user, path) {
    return Array.from(folderOf(user, path).msgDatabase.enumerateMessages(), message => ({
      uid: message.messageKey,
      subject: message.mime2DecodedSubject,
      author: message.mime2DecodedAuthor,
      id: message.messageId,
      octets: message.messageSize,
      seconds: message.dateInSeconds,
      read: message.isRead,
      flagged: message.isFlagged,
      replied: Boolean(message.flags & Ci.nsMsgMessageFlags.Replied),
      keywords: message.getStringProperty("keywords"),
    }));
  },

  // The octets of a message as one character each, as its window gets them.
  source(user, path, uid) {
    const folder = folderOf(user, path);
    const uri = folder.getUriForMsg(messageOf(folder, uid));
    const { promise, resolve } = Promise.withResolvers();
    let text = "";
    MailServices.messageServiceFromURI(uri).streamMessage(
      uri,
      {
        QueryInterface: ChromeUtils.generateQI(["nsIStreamListener"]),
        onStartRequest() {},
        onDataAvailable(request, stream, offset, count) {
          const reader = Cc["@mozilla.org/binaryinputstream;1"].createInstance(Ci.nsIBinaryInputStream);
          reader.setInputStream(stream);
          text += reader.readBytes(count);
        },
        onStopRequest(request, status) {
          resolve(status);
        },
      },
      null,
      null,
      false,
      "",
      false
    );
    return promise.then(status => {
      check(status, "source");
      return text;
    });
  },

  async mark(user, path, uids, what, value) {
    const folder = folderOf(user, path);
    const messages = messagesOf(folder, uids);
    if (what === "read") {
      folder.markMessagesRead(messages, value);
    } else if (what === "flagged") {
      folder.markMessagesFlagged(messages, value);
    } else if (value) {
      folder.addKeywordsToMessages(messages, what);
    } else {
      folder.removeKeywordsFromMessages(messages, what);
    }
  },

  copy(user, path, uids, target, move) {
    const folder = folderOf(user, path);
    return copyDone("copy", listener =>
      MailServices.copy.copyMessages(
        folder, messagesOf(folder, uids), folderOf(user, target), move, listener, null, false
      )
    );
  },

  // Into the trash, as the Delete key does it.
  remove(user, path, uids) {
    const folder = folderOf(user, path);
    return copyDone("delete", listener =>
      folder.deleteMessages(messagesOf(folder, uids), null, false, false, listener, false)
    );
  },

  compact(user, path) {
    return urlDone("compact", listener => folderOf(user, path).compact(listener, null));
  },

  emptyTrash(user) {
    return urlDone("empty trash", listener => folderOf(user, "Trash").emptyTrash(listener));
  },

  async create(user, parent, name) {
    (parent ? folderOf(user, parent) : serverOf(user).rootFolder).createSubfolder(name, null);
  },

  async rename(user, path, name) {
    folderOf(user, path).rename(name, null);
  },

  // Into the trash; deleted for good where it is there already.
  async removeFolder(user, path) {
    folderOf(user, path).deleteSelf(null);
  },

  // The UIDs that the server finds. terms: [attribute, operator, text] of nsMsgSearchAttrib and nsMsgSearchOp.
  search(user, path, terms) {
    const session = Cc["@mozilla.org/messenger/searchSession;1"].createInstance(Ci.nsIMsgSearchSession);
    session.addScopeTerm(Ci.nsMsgSearchScope.onlineMail, folderOf(user, path));
    for (const [attribute, operator, text] of terms) {
      const term = session.createTerm();
      const value = term.value;
      term.attrib = value.attrib = Ci.nsMsgSearchAttrib[attribute];
      term.op = Ci.nsMsgSearchOp[operator];
      value.str = text;
      term.value = value;
      term.booleanAnd = true;
      session.appendTerm(term);
    }
    const { promise, resolve } = Promise.withResolvers();
    const hits = [];
    session.registerListener({
      QueryInterface: ChromeUtils.generateQI(["nsIMsgSearchNotify"]),
      onSearchHit(message) {
        hits.push(message.messageKey);
      },
      onSearchDone(status) {
        resolve(status);
      },
      onNewSearch() {},
    });
    session.search(null);
    return promise.then(status => {
      check(status, "search");
      return hits;
    });
  },

  // By the account's submission server, with a copy to its Sent folder; or into its Drafts. replacing: the UID of the
  // draft that it takes the place of. answering: [path, UID] of the message it answers. attach: the path of a file.
  async send(user, { to, subject, body, draft = false, replacing = null, answering = null, attach = null }) {
    const account = MailServices.accounts.findAccountForServer(serverOf(user));
    const fields = Cc["@mozilla.org/messengercompose/composefields;1"].createInstance(Ci.nsIMsgCompFields);
    Object.assign(fields, { from: user, to, subject, body, forcePlainText: true, useMultipartAlternative: false });
    if (attach !== null) {
      const attachment = Cc["@mozilla.org/messengercompose/attachment;1"].createInstance(Ci.nsIMsgAttachment);
      const file = Cc["@mozilla.org/file/local;1"].createInstance(Ci.nsIFile);
      file.initWithPath(attach);
      attachment.url = Services.io.newFileURI(file).spec;
      attachment.name = file.leafName;
      fields.addAttachment(attachment);
    }
    const params = Cc["@mozilla.org/messengercompose/composeparams;1"].createInstance(Ci.nsIMsgComposeParams);
    params.composeFields = fields;
    params.format = Ci.nsIMsgCompFormat.PlainText;
    params.type = Ci.nsIMsgCompType.New;
    if (answering !== null) {
      const folder = folderOf(user, answering[0]);
      const message = messageOf(folder, answering[1]);
      fields.references = `<${message.messageId}>`;
      params.type = Ci.nsIMsgCompType.Reply;
      params.originalMsgURI = folder.getUriForMsg(message);
    }
    if (replacing !== null) {
      const drafts = folderOf(user, "Drafts");
      fields.draftId = drafts.getUriForMsg(messageOf(drafts, replacing));
      params.type = Ci.nsIMsgCompType.Draft;
    }
    const mode = draft ? Ci.nsIMsgSend.nsMsgSaveAsDraft : Ci.nsIMsgSend.nsMsgDeliverNow;
    const progress = Cc["@mozilla.org/messenger/progress;1"].createInstance(Ci.nsIMsgProgress);
    const compose = MailServices.compose.initCompose(params);
    await compose.sendMsg(mode, account.defaultIdentity, account.key, null, progress);
  },
};
