// Serves dynalite on a port of its choice, which is printed, until stdin ends.
const dynalite = require('dynalite')

const server = dynalite({ createTableMs: 0, deleteTableMs: 0, updateTableMs: 0, path: process.argv[2] })
// Some requests make dynalite throw where nobody catches it. They get no answer,
// and the others go on.
const open = new Set()
server.on('request', (req, res) => {
  open.add(res)
  res.on('close', () => open.delete(res))
})
process.on('uncaughtException', () => {
  for (const res of open) res.destroy()
})
server.listen(0, '127.0.0.1', () => console.log(server.address().port))
process.stdin.on('end', () => process.exit()).resume()
