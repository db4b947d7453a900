'use strict'

// How long after it was appended is a block visible to a live reader in another process? The writer appends one every few
// milliseconds, with the time in it.

const path = require('path')
const { load, work, blocks, timed, percentile, sleep, report } = require('./lib')
const { serving, serve, connect } = require('./tcp')
const Corestore = load('corestore')

const PAUSE = 0.005

const w = work()
const now = () => process.hrtime.bigint() // the same clock in all processes of a machine

async function toServe () {
  const store = new Corestore(path.join(w.dir, 'writer'))
  const core = store.get({ name: 'log' })
  await core.ready()
  const at = blocks(w.block)
  await core.append(Buffer.from(at(0)))
  // The reader has the first block: it is there.
  core.once('upload', async () => {
    for (let i = 1; i <= w.count; i++) {
      await sleep(PAUSE)
      const block = Buffer.from(at(i))
      block.writeBigInt64LE(now())
      await core.append(block)
    }
  })
  await serve({ key: core.key.toString('hex'), onstream: (stream) => store.replicate(stream) })
}

async function read ({ ports, key, stop }) {
  const store = new Corestore(path.join(w.dir, 'reader'))
  const core = store.get({ key: Buffer.from(key, 'hex') })
  await core.ready()
  for (const port of ports) store.replicate(connect(port))
  core.download({ start: 0, end: -1 })
  await core.get(0)
  const took = new Float64Array(w.count)
  const { seconds, cpuSeconds } = await timed(async () => {
    for (let i = 1; i <= w.count; i++) {
      const block = await core.get(i)
      took[i - 1] = Number(now() - block.readBigInt64LE()) / 1000
    }
  })
  await stop()
  await store.close()
  took.sort()
  return { value: percentile(took, 0.5), extra: { seconds, cpuSeconds, p99us: percentile(took, 0.99) } }
}

if (w.role === 'serve') toServe()
else report('corestore', (w) => serving(w, read))
