'use strict'

// Replication over TCP on loopback, of handles {server, sockets, …}.

const net = require('net')

// Small messages are not to wait for others.
const options = { noDelay: true }

// carry replicates what can be replicated, a core or a drive, over a socket.
function carry (e, what, initiator, socket) {
  const stream = what.replicate(initiator, { keepAlive: false })
  e.sockets.add(socket)
  socket.on('error', () => {})
  stream.on('error', () => {})
  socket.on('close', () => e.sockets.delete(socket))
  socket.pipe(stream).pipe(socket)
}

async function listen (e, what) {
  e.server = net.createServer(options, (socket) => carry(e, what, false, socket))
  await new Promise((resolve, reject) => {
    e.server.on('error', reject)
    e.server.listen(0, '127.0.0.1', resolve)
  })
  return { port: e.server.address().port }
}

function connect (e, what, port) {
  carry(e, what, true, net.connect({ port, host: '127.0.0.1', ...options }))
  return null
}

// disconnect ends all that listen and connect have begun.
function disconnect (e) {
  for (const socket of e.sockets) socket.destroy()
  if (e.server) e.server.close()
}

module.exports = { listen, connect, disconnect }
