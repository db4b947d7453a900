// A battery of real operations by the AWS SDK for JavaScript v3, against the door
// at the address that is given. It ends with an error if any answer is wrong.
const assert = require('assert/strict')
const { DynamoDBClient, CreateTableCommand, DescribeTableCommand, UpdateTimeToLiveCommand, DescribeTimeToLiveCommand, waitUntilTableExists,
  TagResourceCommand, ListTagsOfResourceCommand, DeleteTableCommand, ListTablesCommand, ExecuteStatementCommand } = require('@aws-sdk/client-dynamodb')
const { DynamoDBDocumentClient, PutCommand, GetCommand, QueryCommand, ScanCommand, UpdateCommand, DeleteCommand, BatchWriteCommand, BatchGetCommand,
  TransactWriteCommand, TransactGetCommand, paginateQuery } = require('@aws-sdk/lib-dynamodb')

const endpoint = process.argv[2]
const client = (secretAccessKey) => new DynamoDBClient({ endpoint, region: 'us-east-1', credentials: { accessKeyId: 'AK', secretAccessKey }, maxAttempts: 1 })

async function main () {
  const raw = client('secret')
  const db = DynamoDBDocumentClient.from(raw)
  const TableName = 'things'
  await assert.rejects(client('wrong').send(new ListTablesCommand({})), { name: 'InvalidSignatureException' })
  const { TableDescription } = await raw.send(new CreateTableCommand({
    TableName,
    BillingMode: 'PAY_PER_REQUEST',
    AttributeDefinitions: [{ AttributeName: 'pk', AttributeType: 'S' }, { AttributeName: 'sk', AttributeType: 'N' }, { AttributeName: 'kind', AttributeType: 'S' }],
    KeySchema: [{ AttributeName: 'pk', KeyType: 'HASH' }, { AttributeName: 'sk', KeyType: 'RANGE' }],
    LocalSecondaryIndexes: [{ IndexName: 'byKind', KeySchema: [{ AttributeName: 'pk', KeyType: 'HASH' }, { AttributeName: 'kind', KeyType: 'RANGE' }], Projection: { ProjectionType: 'KEYS_ONLY' } }],
    GlobalSecondaryIndexes: [{ IndexName: 'ofKind', KeySchema: [{ AttributeName: 'kind', KeyType: 'HASH' }], Projection: { ProjectionType: 'INCLUDE', NonKeyAttributes: ['weight'] } }]
  }))
  await waitUntilTableExists({ client: raw, minDelay: 1, maxWaitTime: 10 }, { TableName })

  const item = { pk: 'a', sk: 1, kind: 'x', weight: 10, list: [1, 'two', { three: [null, true] }], tags: new Set(['p', 'q']), bytes: new Uint8Array([1, 2, 3]) }
  await db.send(new PutCommand({ TableName, Item: item }))
  const got = await db.send(new GetCommand({ TableName, Key: { pk: 'a', sk: 1 }, ConsistentRead: true }))
  assert.deepEqual(got.Item, item)
  await assert.rejects(db.send(new PutCommand({ TableName, Item: item, ConditionExpression: 'attribute_not_exists(pk)', ReturnValuesOnConditionCheckFailure: 'ALL_OLD' })),
    (err) => err.name === 'ConditionalCheckFailedException' && err.Item.weight.N === '10')

  const requests = []
  for (let sk = 2; sk < 27; sk++) requests.push({ PutRequest: { Item: { pk: 'a', sk, kind: sk % 2 ? 'x' : 'y', weight: sk } } })
  await db.send(new BatchWriteCommand({ RequestItems: { [TableName]: requests } }))
  let n = 0
  for await (const page of paginateQuery({ client: db, pageSize: 4 }, { TableName, KeyConditionExpression: 'pk = :p and sk between :l and :h', ExpressionAttributeValues: { ':p': 'a', ':l': 5, ':h': 20 } })) n += page.Items.length
  assert.equal(n, 16)
  const kinds = await db.send(new QueryCommand({ TableName, IndexName: 'ofKind', KeyConditionExpression: 'kind = :k', FilterExpression: 'weight > :s', ExpressionAttributeValues: { ':k': 'y', ':s': 10 } }))
  assert.equal(kinds.Count, 8)
  assert.deepEqual(Object.keys(kinds.Items[0]).sort(), ['kind', 'pk', 'sk', 'weight'])
  const local = await db.send(new QueryCommand({ TableName, IndexName: 'byKind', KeyConditionExpression: 'pk = :p and begins_with(kind, :k)', ExpressionAttributeValues: { ':p': 'a', ':k': 'x' }, ConsistentRead: true }))
  assert.equal(local.Count, 13)
  const scans = await Promise.all([0, 1, 2].map((Segment) => db.send(new ScanCommand({ TableName, Segment, TotalSegments: 3 }))))
  assert.equal(scans.reduce((sum, s) => sum + s.Count, 0), 26)

  const updated = await db.send(new UpdateCommand({ TableName, Key: { pk: 'a', sk: 2 }, UpdateExpression: 'SET #l = list_append(if_not_exists(#l, :none), :more) ADD weight :one', ExpressionAttributeNames: { '#l': 'log' }, ExpressionAttributeValues: { ':none': [], ':more': ['x'], ':one': 1 }, ReturnValues: 'ALL_NEW' }))
  assert.deepEqual(updated.Attributes, { pk: 'a', sk: 2, kind: 'y', weight: 3, log: ['x'] })
  const both = await db.send(new BatchGetCommand({ RequestItems: { [TableName]: { Keys: [{ pk: 'a', sk: 1 }, { pk: 'a', sk: 99 }], ProjectionExpression: 'weight' } } }))
  assert.deepEqual(both.Responses[TableName], [{ weight: 10 }])

  const ClientRequestToken = 'once'
  const move = { ClientRequestToken, TransactItems: [
    { Update: { TableName, Key: { pk: 'a', sk: 3 }, UpdateExpression: 'ADD weight :n', ExpressionAttributeValues: { ':n': -3 } } },
    { Update: { TableName, Key: { pk: 'a', sk: 4 }, UpdateExpression: 'ADD weight :n', ExpressionAttributeValues: { ':n': 3 } } }] }
  await db.send(new TransactWriteCommand(move))
  await db.send(new TransactWriteCommand(move))
  const after = await db.send(new TransactGetCommand({ TransactItems: [3, 4].map((sk) => ({ Get: { TableName, Key: { pk: 'a', sk } } })) }))
  assert.deepEqual(after.Responses.map((r) => r.Item.weight), [0, 7])
  await assert.rejects(db.send(new TransactWriteCommand({ ClientRequestToken, TransactItems: move.TransactItems.slice(1) })), { name: 'IdempotentParameterMismatchException' })

  const statement = await raw.send(new ExecuteStatementCommand({ Statement: 'SELECT weight FROM things WHERE pk = ? AND sk = 4', Parameters: [{ S: 'a' }] }))
  assert.deepEqual(statement.Items, [{ weight: { N: '7' } }])

  await raw.send(new UpdateTimeToLiveCommand({ TableName, TimeToLiveSpecification: { AttributeName: 'ttl', Enabled: true } }))
  const ttl = await raw.send(new DescribeTimeToLiveCommand({ TableName }))
  assert.equal(ttl.TimeToLiveDescription.TimeToLiveStatus, 'ENABLED')
  await raw.send(new TagResourceCommand({ ResourceArn: TableDescription.TableArn, Tags: [{ Key: 'a', Value: 'b' }] }))
  assert.deepEqual((await raw.send(new ListTagsOfResourceCommand({ ResourceArn: TableDescription.TableArn }))).Tags, [{ Key: 'a', Value: 'b' }])
  await db.send(new DeleteCommand({ TableName, Key: { pk: 'a', sk: 1 } }))
  assert.equal((await raw.send(new DescribeTableCommand({ TableName }))).Table.ItemCount, 25)
  await raw.send(new DeleteTableCommand({ TableName }))
  assert.deepEqual((await raw.send(new ListTablesCommand({}))).TableNames, [])
  console.log('all as it should be')
}

main().catch((err) => {
  console.error(err)
  process.exit(1)
})
