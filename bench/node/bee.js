'use strict'

// Puts count entries into a tree, batch at a time, and gets some of them in random order or goes through all of them,
// each after a short warm pass: what is asked for by gets and warm. The tree is that of makebee.js where that made one.
// The package does not fsync.

const { load, beeKey, putAll, indexes, timed, percentile, report } = require('./lib')
const Hypercore = load('hypercore')
const Hyperbee = load('hyperbee')

function same (value, w) {
  if (value.byteLength !== w.block) throw new Error('a value of ' + value.byteLength + ' bytes')
}

async function gets (bee, w) {
  const next = indexes(w.count)
  for (let i = 0; i < w.warm; i++) await bee.get(beeKey(next()))
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

async function scan (bee, w) {
  const all = async (limit) => {
    let n = 0
    for await (const { value } of bee.createReadStream({ limit })) {
      same(value, w)
      n++
    }
    if (n !== limit) throw new Error(n + ' entries')
  }
  await all(w.warm)
  const { seconds, cpuSeconds } = await timed(() => all(w.count))
  return { value: w.count / seconds, extra: { seconds, cpuSeconds } }
}

report('hyperbee', async (w) => {
  const core = new Hypercore(w.dir)
  const bee = new Hyperbee(core)
  await bee.ready()
  let result
  if (w.gets) result = await gets(bee, w)
  else if (w.warm) result = await scan(bee, w)
  else {
    const { seconds, cpuSeconds } = await timed(() => putAll(bee, w))
    result = { value: w.count / seconds, extra: { seconds, cpuSeconds } }
  }
  await bee.close()
  return result
})
