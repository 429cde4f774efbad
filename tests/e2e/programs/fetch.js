// SPDX-License-Identifier: Apache-2.0
// Usage: node fetch.js fetch|net|http HOST PORT: fetches /hello in one of
// Node's ways and prints the body.

const [way, host, port] = process.argv.slice(2);
const url = `http://${host.includes(":") ? `[${host}]` : host}:${port}/hello`;

async function viaFetch() {
	const answer = await fetch(url);
	return answer.text();
}

function viaNet() {
	return new Promise((resolve, reject) => {
		let answer = "";
		const socket = require("net").connect({ host, port: Number(port) });
		socket.on("connect", () => {
			if (socket.remotePort !== Number(port))
				reject(new Error(`remotePort is ${socket.remotePort}`));
			socket.setNoDelay(true);
			socket.write("GET /hello HTTP/1.0\r\nHost: x\r\n\r\n");
		});
		socket.on("data", (data) => { answer += data; });
		socket.on("end", () => resolve(answer.split("\r\n\r\n")[1]));
		socket.on("error", reject);
	});
}

function viaHttp() {
	return new Promise((resolve, reject) => {
		require("http").get(url, (answer) => {
			let body = "";
			answer.on("data", (data) => { body += data; });
			answer.on("end", () => resolve(body));
		}).on("error", reject);
	});
}

({ fetch: viaFetch, net: viaNet, http: viaHttp })[way]()
	.then((body) => process.stdout.write(body))
	.catch((error) => {
		console.error(error.cause ? error.cause.code : error.code, String(error));
		process.exit(1);
	});
