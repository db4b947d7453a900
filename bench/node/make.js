'use strict'

// Makes the store that open.js and idle.js open: logs named log-0, log-1, … of one block each. Not timed.
// Then it opens the store once, because the first opening has the writing's remains to work through.

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

  const again = new Corestore(w.dir)
  await again.get({ name: 'log-0' }).get(0)
  await again.close()
  return { value: w.logs, extra: {} }
})
