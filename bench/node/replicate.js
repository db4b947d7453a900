'use strict'

// Copies a log of count blocks from one process to another, from disk to disk. With make=1 it only makes the
// writer's store, which is then there for later runs.

const { existsSync, rmSync } = require('fs')
const path = require('path')
const { load, work, appendAll, timed, report } = require('./lib')
const { serving, serve, connect, growth } = require('./tcp')
const Corestore = load('corestore')

const w = work()
const writer = path.join(w.dir, 'writer')

async function written () {
  const made = existsSync(writer)
  // Every process makes the same log, so that several can serve it.
  const store = new Corestore(writer, { primaryKey: Buffer.alloc(32, 1), unsafe: true })
  const core = store.get({ name: 'log' })
  await core.ready()
  if (!made) await appendAll(core, w)
  if (core.length !== w.count) throw new Error(core.length + ' blocks in the log')
  return { store, core }
}

async function toServe () {
  const { store, core } = await written()
  const grown = growth()
  await serve({
    key: core.key.toString('hex'),
    onstream: (stream) => store.replicate(stream),
    finish: () => ({ servesMiB: grown() })
  })
}

async function read ({ ports, key, stop }) {
  const dir = path.join(w.dir, 'reader')
  const store = new Corestore(dir)
  const core = store.get({ key: Buffer.from(key, 'hex') })
  await core.ready()
  const grown = growth()
  const { seconds, cpuSeconds } = await timed(async () => {
    for (const port of ports) store.replicate(connect(port))
    await core.download({ start: 0, end: w.count }).done()
  })
  const readsMiB = grown()
  const last = await core.get(w.count - 1, { wait: false })
  if (core.contiguousLength !== w.count || last.byteLength !== w.block) throw new Error('the copy is not whole')
  const extra = { seconds, cpuSeconds, readsMiB, ...(await stop()) }
  await store.close()
  rmSync(dir, { recursive: true })
  const values = {
    'MiB/s': (w.count * w.block) / (1 << 20) / seconds,
    'blocks/s': w.count / seconds,
    MiB: Math.max(readsMiB, extra.servesMiB || 0)
  }
  return { value: values[w.unit], extra }
}

if (w.role === 'serve') {
  toServe()
} else if (w.make) {
  report('corestore', async () => {
    const { store, core } = await written()
    const { length } = core
    await store.close()
    return { value: length, extra: {} }
  })
} else {
  report('corestore', (w) => serving(w, read))
}
