'use strict'

// Makes the store that open.js and idle.js open: logs named log-0, log-1, … of one block each. Not timed.

const { load, blocks, report } = require('./lib')
const Corestore = load('corestore')

report('corestore', async (w) => {
  const store = new Corestore(w.dir)
  await store.ready()
  const at = blocks(w.block)
  for (let i = 0; i < w.logs; i++) {
    const core = store.get({ name: 'log-' + i })
    await core.append(at(i))
    await core.close()
  }
  await store.close()
  return { value: w.logs, extra: {} }
})
