'use strict'

// Makes the drive that drive.js reads. Not timed.

const { load, putFiles, report } = require('./lib')
const Corestore = load('corestore')
const Hyperdrive = load('hyperdrive')

report('hyperdrive', async (w) => {
  const drive = new Hyperdrive(new Corestore(w.dir))
  await drive.ready()
  await putFiles(drive, w)
  await drive.close()
  return { value: w.count, extra: {} }
})
