'use strict'

// Gets one entry from a tree that is served at a port, with several new readers one after the other. The value is the
// milliseconds of all.

const path = require('path')
const { load, beeKey, indexes, report } = require('./lib')
const { serving, connect } = require('./tcp')
const Hypercore = load('hypercore')
const Hyperbee = load('hyperbee')

async function get (w, i, key, port, entry) {
  const core = new Hypercore(path.join(w.dir, String(i)), Buffer.from(key, 'hex'))
  const bee = new Hyperbee(core)
  await bee.ready()
  let blocks = 0
  core.on('download', () => blocks++)
  const stream = connect(port)
  core.replicate(stream)
  while (core.length <= w.count) await new Promise((resolve) => core.once('append', resolve))
  const start = performance.now()
  const { value } = await bee.get(beeKey(entry))
  const took = performance.now() - start
  if (value.byteLength !== w.block) throw new Error('a value of ' + value.byteLength + ' bytes')
  stream.destroy()
  await bee.close()
  return { took, blocks }
}

report('hyperbee', (w) => serving(w, async ({ ports, key }) => {
  const next = indexes(w.count)
  let value = 0
  let blocks = 0
  for (let i = 0; i < w.gets; i++) {
    const one = await get(w, i, key, ports[0], next())
    value += one.took
    blocks += one.blocks
  }
  return { value, extra: { blocks } }
}))
