// Follows a stream with Alpaca's own client and prints each event as a line of JSON.
//
//   node stream.cjs URL KEY SECRET SYMBOLS [bars|dailyBars]
//
// Ends when its standard input does.
"use strict";

const { Alpaca } = require("@alpacahq/alpaca-trade-api");

const [url, keyId, secret, symbols, channel = "bars"] = process.argv.slice(2);
const say = (event) => process.stdout.write(`${JSON.stringify(event)}\n`);

const stream = new Alpaca({ keyId, secret }).marketData.stockStream({
  url,
  initialReconnectMs: 100,
  reconnectJitter: 0,
  maxReconnectAttempts: -1,
});
const told = (kind) => (bar) => say({ kind, ...bar });

stream.on("state_change", (state) => say({ kind: "state", state }));
stream.on("error", (message) => say({ kind: "error", message }));
stream.on("subscription", (listed) => say({ kind: "subscription", ...listed }));
stream.onBar(told("bar")).onDailyBar(told("day"));

if (channel === "dailyBars") {
  stream.subscribeForDailyBars(symbols.split(","));
} else {
  stream.subscribeForBars(symbols.split(","));
}
stream.connect();
process.stdin.on("end", () => process.exit(0)).resume();
