'use strict'

// What a log's blocks weigh on disk, after it was closed.

const { load, appendAll, diskBytes, report } = require('./lib')
const Hypercore = load('hypercore')

report('hypercore', async (w) => {
  const core = new Hypercore(w.dir)
  await core.ready()
  await appendAll(core, w)
  await core.close()
  const bytes = diskBytes(w.dir)
  return { value: bytes / w.count, extra: { diskMiB: bytes / (1 << 20) } }
})
