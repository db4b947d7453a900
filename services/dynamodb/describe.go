package dynamodb

import "encoding/json"

// What clients are told of a table.

type keyElement struct {
	AttributeName, KeyType string
}

type attributeDefinition struct {
	AttributeName, AttributeType string
}

type throughputDescription struct {
	LastIncreaseDateTime   json.Number `json:",omitempty"`
	LastDecreaseDateTime   json.Number `json:",omitempty"`
	NumberOfDecreasesToday int64
	ReadCapacityUnits      int64
	WriteCapacityUnits     int64
}

type projectionDescription struct {
	ProjectionType   string
	NonKeyAttributes []string `json:",omitempty"`
}

type indexDescription struct {
	IndexName             string
	KeySchema             []keyElement
	Projection            projectionDescription
	IndexStatus           string                 `json:",omitempty"`
	Backfilling           bool                   `json:",omitempty"`
	ProvisionedThroughput *throughputDescription `json:",omitempty"`
	IndexSizeBytes        int64
	ItemCount             int64
	IndexArn              string
}

type billingSummary struct {
	BillingMode                       string
	LastUpdateToPayPerRequestDateTime json.Number `json:",omitempty"`
}

type modeSummary struct {
	TableThroughputMode               string
	LastUpdateToPayPerRequestDateTime json.Number `json:",omitempty"`
}

type streamSpecification struct {
	StreamEnabled  bool
	StreamViewType string `json:",omitempty"`
}

type classSummary struct{ TableClass string }

type restoreSummary struct {
	SourceBackupArn   string `json:",omitempty"`
	SourceTableArn    string `json:",omitempty"`
	RestoreDateTime   json.Number
	RestoreInProgress bool
}

type tableDescription struct {
	AttributeDefinitions       []attributeDefinition `json:",omitempty"`
	TableName                  string
	KeySchema                  []keyElement `json:",omitempty"`
	TableStatus                string
	CreationDateTime           json.Number `json:",omitempty"`
	ProvisionedThroughput      throughputDescription
	TableSizeBytes             int64
	ItemCount                  int64
	TableArn                   string
	TableId                    string
	BillingModeSummary         *billingSummary      `json:",omitempty"`
	TableThroughputModeSummary *modeSummary         `json:",omitempty"`
	LocalSecondaryIndexes      []indexDescription   `json:",omitempty"`
	GlobalSecondaryIndexes     []indexDescription   `json:",omitempty"`
	StreamSpecification        *streamSpecification `json:",omitempty"`
	LatestStreamLabel          string               `json:",omitempty"`
	LatestStreamArn            string               `json:",omitempty"`
	TableClassSummary          *classSummary        `json:",omitempty"`
	DeletionProtectionEnabled  *bool                `json:",omitempty"`
	RestoreSummary             *restoreSummary      `json:",omitempty"`
}

func (d *Door) arn(table string) string {
	return "arn:aws:dynamodb:" + d.o.Region + ":" + d.o.Account + ":table/" + table
}

func (d *Door) streamArn(table, label string) string { return d.arn(table) + "/stream/" + label }

func keyElements(keys []keyPart) []keyElement {
	out := make([]keyElement, len(keys))
	for i, k := range keys {
		out[i] = keyElement{k.Name, k.Kind}
	}
	return out
}

func (c capacityUnits) describe() throughputDescription {
	out := throughputDescription{NumberOfDecreasesToday: c.Decreases, ReadCapacityUnits: c.Read, WriteCapacityUnits: c.Write}
	if c.Increased != 0 {
		out.LastIncreaseDateTime = seconds(c.Increased)
	}
	if c.Decreased != 0 {
		out.LastDecreaseDateTime = seconds(c.Decreased)
	}
	return out
}

func (d *Door) describeIndex(s *schema, x *index, status string) indexDescription {
	out := indexDescription{
		IndexName: x.Name, KeySchema: keyElements(x.Keys), IndexArn: d.arn(s.Name) + "/index/" + x.Name,
		Projection: projectionDescription{x.Projection, x.Include},
	}
	if !x.local {
		t := x.Capacity.describe()
		out.ProvisionedThroughput = &t
		out.IndexStatus = status
		if x.Filling {
			out.IndexStatus, out.Backfilling = "CREATING", true
		}
	}
	return out
}

// describe is what clients are told of a table whose status is that.
func (d *Door) describe(s *schema, counts state, status string) tableDescription {
	out := tableDescription{
		TableName: s.Name, KeySchema: keyElements(s.Keys), TableStatus: status, CreationDateTime: seconds(s.Created),
		ProvisionedThroughput: s.Capacity.describe(), TableSizeBytes: counts.bytes, ItemCount: counts.items,
		TableArn: d.arn(s.Name), TableId: uuid(s.ID),
	}
	if s.Protected || status != "CREATING" {
		out.DeletionProtectionEnabled = &s.Protected
	}
	for _, a := range s.Attributes {
		out.AttributeDefinitions = append(out.AttributeDefinitions, attributeDefinition{a.Name, a.Type})
	}
	if s.OnDemand || s.OnDemandAt != 0 {
		mode := "PROVISIONED"
		if s.OnDemand {
			mode = "PAY_PER_REQUEST"
		}
		out.BillingModeSummary, out.TableThroughputModeSummary = &billingSummary{BillingMode: mode}, &modeSummary{TableThroughputMode: mode}
		if s.OnDemandAt != 0 && (status == "ACTIVE" || status == "DELETING") {
			out.BillingModeSummary.LastUpdateToPayPerRequestDateTime = seconds(s.OnDemandAt)
			out.TableThroughputModeSummary.LastUpdateToPayPerRequestDateTime = seconds(s.OnDemandAt)
		}
	}
	for _, x := range s.Local {
		out.LocalSecondaryIndexes = append(out.LocalSecondaryIndexes, d.describeIndex(s, x, ""))
	}
	for _, x := range s.Global {
		if status != "DELETING" {
			out.GlobalSecondaryIndexes = append(out.GlobalSecondaryIndexes, d.describeIndex(s, x, status))
		}
	}
	if s.Stream != nil {
		out.LatestStreamLabel, out.LatestStreamArn = s.Stream.Label, d.streamArn(s.Name, s.Stream.Label)
		if s.Stream.On {
			out.StreamSpecification = &streamSpecification{true, s.Stream.View}
		}
	}
	if s.Class != "" {
		out.TableClassSummary = &classSummary{s.Class}
	}
	if from := s.Restored; from != nil {
		out.RestoreSummary = &restoreSummary{SourceBackupArn: from.Backup, SourceTableArn: from.Table, RestoreDateTime: seconds(from.Time)}
	}
	return out
}

// uuid writes an id as DynamoDB does.
func uuid(id string) string {
	if len(id) != 32 {
		return id
	}
	return id[:8] + "-" + id[8:12] + "-" + id[12:16] + "-" + id[16:20] + "-" + id[20:]
}
