'use strict'

// A peer that needs no npm packages, for the tests of nodepeer itself.

const fs = require('fs')
const path = require('path')
const { serve, tempDir, coded } = require('../../../interop/node/lib/lines')

if (process.argv[2] === 'broken') {
  console.error('the reason is on stderr')
  process.exit(3)
}

const notes = []
let started = 0

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms))

serve({
  echo: (params) => params,
  args: () => process.argv.slice(2),
  fail: ({ code, message }) => { throw coded(code, message) },
  failOddly: () => { throw 'just a string' }, // eslint-disable-line no-throw-literal
  later: async ({ ms, value }) => { await sleep(ms); return value },
  note: async ({ ms, value }) => { started++; await sleep(ms); notes.push(value) },
  notes: () => ({ started, notes }),
  noise: () => { console.log('a package printed this') },
  garbage: () => { process.stdout.write('not JSON\n') },
  exit: ({ code }) => { console.error('going'); process.exit(code) },
  hang: () => { for (;;); },
  temp: () => { const dir = tempDir(); fs.writeFileSync(path.join(dir, 'file'), 'x'); return dir }
})
