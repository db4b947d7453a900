'use strict'

// Opens a store of many logs and reads one block of one log; then, timed apart, opens every log and reads a block of each.

const { load, timed, residentMiB, fileHandles, report } = require('./lib')
const Corestore = load('corestore')

report('corestore', async (w) => {
  let store = null
  const read = async (i) => {
    const block = await store.get({ name: 'log-' + i }).get(0)
    if (block.byteLength !== w.block) throw new Error('a block of ' + block.byteLength + ' bytes')
  }
  const one = await timed(async () => {
    store = new Corestore(w.dir)
    await read(w.logs >> 1)
  })
  const sinceStartMs = process.uptime() * 1000
  const first = { rssMiB: residentMiB(), fileHandles: fileHandles() }
  const all = await timed(async () => {
    for (let i = 0; i < w.logs; i++) await read(i)
  })
  const extra = {
    cpuSeconds: one.cpuSeconds,
    sinceStartMs,
    ...first,
    allMs: all.seconds * 1000,
    allCpuSeconds: all.cpuSeconds,
    allRssMiB: residentMiB(),
    allFileHandles: fileHandles()
  }
  await store.close()
  return { value: one.seconds * 1000, extra }
})
