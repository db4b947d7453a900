'use strict'

// Appends count blocks to a new log, batch at a time, each when the one before has been acknowledged.
// The package does not fsync.

const { load, appendAll, timed, report } = require('./lib')
const Hypercore = load('hypercore')

report('hypercore', async (w) => {
  const core = new Hypercore(w.dir)
  await core.ready()
  const { seconds, cpuSeconds } = await timed(() => appendAll(core, w))
  await core.close()
  const perSecond = w.unit === 'MiB/s' ? (w.count * w.block) / (1 << 20) / seconds : w.count / seconds
  return { value: perSecond, extra: { seconds, cpuSeconds } }
})
