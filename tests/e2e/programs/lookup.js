// SPDX-License-Identifier: Apache-2.0

// node lookup.js METHOD NAME: print a name's addresses, or "unknown".
// METHOD is a function of dns.promises; lookup is the libc's, the others are
// c-ares.
'use strict';

const dns = require('dns').promises;
const [method, name] = process.argv.slice(2);

async function main() {
	try {
		const options = method === 'lookup' ? [{ all: true }] : [];
		for (const found of await dns[method](name, ...options))
			console.log(found.address || found.exchange || found);
	} catch (error) {
		console.log(error.code === 'ENOTFOUND' ? 'unknown' : error.code);
	}
}

main();
