// Checks the feed of a running system with Node's `ws`, an independent client (`npm install ws`, in any parent directory).
//
//     node scripts/check_feed.mjs http://127.0.0.1:8080 "$(make -s token ROLE=admin)"
//
// It negotiates compression, resumes, pings, and expects the close codes of docs/feed.md for a deflate bomb and a bad token.
import { createRequire } from "node:module";
import path from "node:path";

// Resolved from the working directory, so that the package need not be installed in this tree.
const WebSocket = createRequire(path.join(process.cwd(), "x.js"))("ws");
const [apiUrl, token] = process.argv.slice(2);
if (!token) {
  console.error("usage: check_feed.mjs API_URL TOKEN");
  process.exit(2);
}
const wsUrl = apiUrl.replace(/^http/, "ws").replace(/\/$/, "") + "/ws";
const headers = { authorization: "Bearer " + token };
let failed = 0;
const check = (what, holds) => {
  console.log((holds ? "ok      " : "FAILED  ") + what);
  failed += holds ? 0 : 1;
};

// Opens a stream: its frames as they arrive, and how it closed.
function open(options, protocols = [], url = wsUrl) {
  const socket = new WebSocket(url, protocols, options);
  const frames = [];
  let wake = () => {};
  let end = null;
  socket.on("message", (data) => { frames.push(JSON.parse(data)); wake(); });
  socket.on("close", (code, reason) => { end = { code, reason: reason.toString() }; wake(); });
  socket.on("error", (error) => { end ??= { error }; wake(); });
  const until = async (ready) => {
    const limit = Date.now() + 20_000;
    for (;;) {
      const found = ready();
      if (found) return found;
      if (Date.now() > limit) throw new Error("nothing arrived within 20 s");
      await new Promise((resolve) => { wake = resolve; setTimeout(resolve, 500); });
    }
  };
  return { socket, next: () => until(() => frames.shift()), closed: () => until(() => end) };
}

for (const [name, perMessageDeflate] of [
  ["the client's default offer", true],
  ["both windows bounded", { serverMaxWindowBits: 12, clientMaxWindowBits: 10, threshold: 0 }],
  ["no context", { serverNoContextTakeover: true, clientNoContextTakeover: true, threshold: 0 }],
]) {
  const { socket, next } = open({ headers, perMessageDeflate });
  const hello = await next();
  socket.send(JSON.stringify({ type: "resume", after: 0 }));
  const events = [];
  while (events.length < Math.min(hello.seq, 2000)) events.push(...[await next()].flat());
  const inOrder = events.every((event, index) => index === 0 || event.seq > events[index - 1].seq);
  check(`${name}: agreed, ${events.length} events replayed in order`, socket.extensions.includes("permessage-deflate") && inOrder);
  socket.ping();
  await new Promise((resolve) => socket.once("pong", resolve));
  socket.send(JSON.stringify({ type: "ping", padding: "x".repeat(3000) }));
  // The answer follows the events that are still being replayed.
  while (![await next()].flat().some((message) => message.type === "pong"));
  check(`${name}: pings are answered`, true);
  socket.close();
}
{
  const { socket, next, closed } = open({ headers, perMessageDeflate: true });
  await next();
  socket.send(JSON.stringify({ type: "ping", padding: " ".repeat(30_000_000) }));
  const { code, reason } = await closed();
  check(`a deflate bomb is closed with ${code} ${reason}`, code === 1009);
}
{
  const { socket, next } = open({}, ["gridtokenx", "bearer." + token]);
  await next();
  check("a token is accepted beside the name of the protocol", socket.protocol === "gridtokenx");
  socket.close();
}
{
  const { socket, closed } = open({});
  socket.once("open", () => socket.send(JSON.stringify({ type: "auth", token: "nonsense" })));
  const { code, reason } = await closed();
  check(`a bad first message is closed with ${code} ${reason}`, code === 4401);
}
process.exit(failed ? 1 : 0);
