package dynamodb

// The shapes of requests. The order of members is that in which DynamoDB tells
// what is wrong with them.

func ptr(f float64) *float64 { return &f }

func str(name string) field  { return field{name, shape{kind: kString}} }
func flag(name string) field { return field{name, shape{kind: kBool}} }

func enum(name string, values ...string) field {
	return field{name, shape{kind: kString, enum: values}}
}

func must(f field) field {
	f.notNull = true
	return f
}

// nameOf is the name of a table or an index.
func nameOf(name string) field {
	return field{name, shape{kind: kString, name3: true, minLen: 3, maxLen: 255}}
}

func list(name string, of shape) field { return field{name, shape{kind: kList, of: &of}} }

func mapOf(name, java string, of shape) field {
	return field{name, shape{kind: kMap, name: java, of: &of}}
}

func fieldStruct(name, java string, fields ...field) field {
	return field{name, shape{kind: kFieldStruct, name: java, fields: fields}}
}

func structOf(java string, fields ...field) shape {
	return shape{kind: kStruct, name: java, fields: fields}
}

func least(f field, n int) field {
	f.minLen = n
	return f
}

func atMost(f field, n int) field {
	f.maxLen = n
	return f
}

func asJava(f field) field {
	f.java = true
	return f
}

func integer(name string, from float64) field {
	return field{name, shape{kind: kInteger, minValue: ptr(from)}}
}

func long(name string, from float64) field {
	return field{name, shape{kind: kLong, minValue: ptr(from), notNull: true}}
}

var (
	value     = shape{kind: kValue}
	text      = shape{kind: kString}
	tableName = must(nameOf("TableName"))
	// table2 is the name of a table in requests about tables, which is looked at first.
	table2      = field{"TableName", shape{kind: kString, required: true, tableName: true, name3: true}}
	capacity    = enum("ReturnConsumedCapacity", "INDEXES", "TOTAL", "NONE")
	metrics     = enum("ReturnItemCollectionMetrics", "SIZE", "NONE")
	returns     = enum("ReturnValues", "ALL_NEW", "UPDATED_OLD", "ALL_OLD", "NONE", "UPDATED_NEW")
	onFailure   = enum("ReturnValuesOnConditionCheckFailure", "ALL_OLD", "NONE")
	conditional = enum("ConditionalOperator", "OR", "AND")
	attrValues  = mapOf("ExpressionAttributeValues", "AttributeValue", value)
	attrNames   = mapOf("ExpressionAttributeNames", "java.lang.String", text)
	keyMap      = must(mapOf("Key", "AttributeValue", value))
	itemMap     = must(mapOf("Item", "AttributeValue", value))
	startKey    = mapOf("ExclusiveStartKey", "AttributeValue", value)
	toGet       = atMost(least(list("AttributesToGet", text), 1), 255)
	selects     = enum("Select", "SPECIFIC_ATTRIBUTES", "COUNT", "ALL_ATTRIBUTES", "ALL_PROJECTED_ATTRIBUTES")
	operators   = []string{"IN", "NULL", "BETWEEN", "LT", "NOT_CONTAINS", "EQ", "GT", "NOT_NULL", "NE", "LE", "BEGINS_WITH", "GE", "CONTAINS"}

	expected = mapOf("Expected", "ExpectedAttributeValue", structOf("ExpectedAttributeValue",
		list("AttributeValueList", value),
		enum("ComparisonOperator", operators...),
		flag("Exists"),
		field{"Value", shape{kind: kFieldValue}}))

	throughputFields = []field{long("WriteCapacityUnits", 1), long("ReadCapacityUnits", 1)}
	throughput       = fieldStruct("ProvisionedThroughput", "ProvisionedThroughput", throughputFields...)
	billing          = enum("BillingMode", "PROVISIONED", "PAY_PER_REQUEST")
	indexName        = must(nameOf("IndexName"))
	projection       = must(fieldStruct("Projection", "Projection",
		enum("ProjectionType", "ALL", "INCLUDE", "KEYS_ONLY"),
		least(list("NonKeyAttributes", shape{kind: kString, minLen: 1, maxLen: 255}), 1)))
	indexKeys = must(atMost(least(list("KeySchema", structOf("KeySchemaElement",
		must(atMost(least(str("AttributeName"), 1), 255)), must(str("KeyType")))), 1), 2))
	globalKeys  = must(least(list("KeySchema", *indexKeys.of), 1))
	definitions = list("AttributeDefinitions", structOf("AttributeDefinition",
		must(atMost(least(str("AttributeName"), 1), 255)), must(enum("AttributeType", "B", "N", "S"))))
	streamSpec = fieldStruct("StreamSpecification", "StreamSpecification",
		must(flag("StreamEnabled")), enum("StreamViewType", "NEW_IMAGE", "OLD_IMAGE", "NEW_AND_OLD_IMAGES", "KEYS_ONLY"))
	tags = list("Tags", structOf("Tag", str("Key"), str("Value")))
)

// condition is a filter of the old kind.
func condition(name string, valuesFirst bool) field {
	values, operator := list("AttributeValueList", value), must(enum("ComparisonOperator", operators...))
	if valuesFirst {
		return mapOf(name, "Condition", structOf("Condition", values, operator))
	}
	return mapOf(name, "Condition", structOf("Condition", operator, values))
}

var (
	putShape = []field{capacity, tableName, itemMap, conditional, expected, returns, onFailure, metrics,
		str("ConditionExpression"), attrValues, attrNames}
	getShape    = []field{capacity, toGet, tableName, keyMap, flag("ConsistentRead"), str("ProjectionExpression"), attrNames}
	deleteShape = []field{capacity, tableName, returns, onFailure, metrics, keyMap, conditional, expected,
		str("ConditionExpression"), attrValues, attrNames}
	updateShape = []field{capacity, tableName, metrics, returns, onFailure, keyMap, conditional, expected,
		mapOf("AttributeUpdates", "AttributeValueUpdate", structOf("AttributeValueUpdate",
			enum("Action", "ADD", "PUT", "DELETE"), field{"Value", shape{kind: kFieldValue}})),
		str("ConditionExpression"), str("UpdateExpression"), attrValues, attrNames}
	queryShape = []field{selects, nameOf("IndexName"), capacity, condition("QueryFilter", true), tableName, conditional,
		toGet, field{"Limit", shape{kind: kInteger, minValue: ptr(1), late: true}}, condition("KeyConditions", false), startKey, flag("ConsistentRead"),
		flag("ScanIndexForward"), str("KeyConditionExpression"), str("FilterExpression"), str("ProjectionExpression"),
		attrValues, attrNames}
	scanShape = []field{selects, nameOf("IndexName"), field{"TotalSegments", shape{kind: kInteger, minValue: ptr(1), maxValue: ptr(1000000)}}, capacity, tableName, conditional,
		condition("ScanFilter", true), integer("Segment", 0), integer("Limit", 1), toGet, startKey, flag("ConsistentRead"),
		str("FilterExpression"), str("ProjectionExpression"), attrValues, attrNames}

	batchGetShape = []field{capacity, {"RequestItems", shape{kind: kMap, name: "KeysAndAttributes", notNull: true, minLen: 1, keys: true,
		of: &shape{kind: kStruct, name: "KeysAndAttributes", fields: []field{
			{"Keys", shape{kind: kList, notNull: true, minLen: 1, maxLen: 100, of: &shape{kind: kParamMap, of: &value}}},
			toGet, flag("ConsistentRead"), str("ProjectionExpression"), attrNames}}}}}
	batchWriteShape = []field{capacity, metrics, {"RequestItems", shape{kind: kMap,
		name: "java.util.List<com.amazonaws.dynamodb.v20120810.WriteRequest>", notNull: true, minLen: 1, keys: true, values: 25,
		of: &shape{kind: kParamList, of: &shape{kind: kStruct, name: "WriteRequest", fields: []field{
			fieldStruct("DeleteRequest", "DeleteRequest", keyMap),
			fieldStruct("PutRequest", "PutRequest", itemMap)}}}}}}

	createTableShape = []field{must(definitions), table2, billing, throughput,
		must(asJava(atMost(least(list("KeySchema", structOf("KeySchemaElement",
			must(atMost(least(str("AttributeName"), 1), 255)), must(enum("KeyType", "HASH", "RANGE")))), 1), 2))),
		list("LocalSecondaryIndexes", structOf("LocalSecondaryIndex", indexName, indexKeys, projection)),
		list("GlobalSecondaryIndexes", structOf("GlobalSecondaryIndex", indexName, globalKeys, projection, throughput)),
		streamSpec, tags, flag("DeletionProtectionEnabled"), enum("TableClass", "STANDARD", "STANDARD_INFREQUENT_ACCESS")}
	updateTableShape = []field{definitions, table2, throughput, billing,
		list("GlobalSecondaryIndexUpdates", structOf("GlobalSecondaryIndexUpdate",
			fieldStruct("Update", "UpdateGlobalSecondaryIndexAction", indexName, must(throughput)),
			fieldStruct("Create", "CreateGlobalSecondaryIndexAction", projection, indexName, throughput, globalKeys),
			fieldStruct("Delete", "DeleteGlobalSecondaryIndexAction", indexName))),
		streamSpec, flag("DeletionProtectionEnabled"), enum("TableClass", "STANDARD", "STANDARD_INFREQUENT_ACCESS"),
		fieldStruct("SSESpecification", "SSESpecification", flag("Enabled"))}
	oneTableShape   = []field{table2}
	listTablesShape = []field{{"Limit", shape{kind: kInteger, minValue: ptr(1), maxValue: ptr(100)}}, nameOf("ExclusiveStartTableName")}
	tagShape        = []field{str("ResourceArn"), tags}
	untagShape      = []field{str("ResourceArn"), list("TagKeys", text)}
	listTagsShape   = []field{str("ResourceArn"), str("NextToken")}
)
