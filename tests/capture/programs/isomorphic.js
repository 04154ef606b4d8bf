const git = require("isomorphic-git"), http = require("isomorphic-git/http/node"), fs = require("fs");
const what = { fs, http, dir: "isomorphic", url: process.argv[2], onAuth: () => ({ username: "jane", password: "secret" }) };
(async () => {
  await git.clone({ ...what, singleBranch: true });
  await git.commit({ ...what, message: "i", author: { name: "Jane", email: "jane@example.org" } });
  await git.push({ ...what, remoteRef: "refs/heads/isomorphic" });
})();
