'use strict'

// Puts count entries into a tree, batch at a time; with a tree that makebee.js has made, gets some of its entries in random
// order, after all were read once, or goes through all of them twice. The package does not fsync.

const { load, beeKey, putAll, indexes, timed, percentile, report } = require('./lib')
const Hypercore = load('hypercore')
const Hyperbee = load('hyperbee')

function same (value, w) {
  if (value.byteLength !== w.block) throw new Error('a value of ' + value.byteLength + ' bytes')
}

async function scan (bee, w) {
  let n = 0
  for await (const { value } of bee.createReadStream()) {
    same(value, w)
    n++
  }
  if (n !== w.count) throw new Error(n + ' entries')
}

async function gets (bee, w) {
  const next = indexes(w.count)
  await scan(bee, w)
  const took = new Float64Array(w.gets)
  const { seconds, cpuSeconds } = await timed(async () => {
    for (let i = 0; i < w.gets; i++) {
      const start = performance.now()
      const { value } = await bee.get(beeKey(next()))
      took[i] = performance.now() - start
      same(value, w)
    }
  })
  took.sort()
  const p50us = percentile(took, 0.5) * 1000
  const p99us = percentile(took, 0.99) * 1000
  return { value: w.gets / seconds, extra: { seconds, cpuSeconds, p50us, p99us } }
}

report('hyperbee', async (w) => {
  const core = new Hypercore(w.dir)
  const bee = new Hyperbee(core)
  await bee.ready()
  let result
  if (w.gets) result = await gets(bee, w)
  else if (bee.version > 1) {
    const first = await timed(() => scan(bee, w))
    const { seconds, cpuSeconds } = await timed(() => scan(bee, w))
    result = { value: w.count / seconds, extra: { seconds, cpuSeconds, firstPerSecond: w.count / first.seconds } }
  } else {
    const { seconds, cpuSeconds } = await timed(() => putAll(bee, w))
    result = { value: w.count / seconds, extra: { seconds, cpuSeconds } }
  }
  await bee.close()
  return result
})
