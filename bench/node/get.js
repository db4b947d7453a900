'use strict'

// Gets blocks of a log of count blocks in random order, one at a time, after a short warm pass.

const { load, appendAll, indexes, timed, percentile, report } = require('./lib')
const Hypercore = load('hypercore')

report('hypercore', async (w) => {
  const core = new Hypercore(w.dir)
  await core.ready()
  await appendAll(core, w)
  const next = indexes(w.count)
  for (let i = 0; i < w.warm; i++) await core.get(next())
  const took = new Float64Array(w.gets)
  const { seconds, cpuSeconds } = await timed(async () => {
    for (let i = 0; i < w.gets; i++) {
      const start = performance.now()
      const block = await core.get(next())
      took[i] = performance.now() - start
      if (block.byteLength !== w.block) throw new Error('a block of ' + block.byteLength + ' bytes')
    }
  })
  await core.close()
  took.sort()
  const p50us = percentile(took, 0.5) * 1000
  const p99us = percentile(took, 0.99) * 1000
  return { value: w.gets / seconds, extra: { seconds, cpuSeconds, p50us, p99us } }
})
