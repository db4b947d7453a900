'use strict'

// Makes the tree that bee.js gets from. Not timed.

const { load, putAll, report } = require('./lib')
const Hypercore = load('hypercore')
const Hyperbee = load('hyperbee')

report('hyperbee', async (w) => {
  const bee = new Hyperbee(new Hypercore(w.dir))
  await bee.ready()
  await putAll(bee, w)
  await bee.close()
  return { value: w.count, extra: {} }
})
