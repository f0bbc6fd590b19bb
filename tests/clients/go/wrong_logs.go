package main

import (
	"github.com/twmb/franz-go/pkg/kmsg"
)

func (i *inquiry) describeConfigs(kind kmsg.ConfigResourceType, name string) (int16, error) {
	r := kmsg.NewPtrDescribeConfigsRequest()
	r.Version = 4
	resource := kmsg.NewDescribeConfigsRequestResource()
	resource.ResourceType, resource.ResourceName = kind, name
	r.Resources = append(r.Resources, resource)
	answer, err := i.ask(r)
	if err != nil {
		return 0, err
	}
	return answer.(*kmsg.DescribeConfigsResponse).Resources[0].ErrorCode, nil
}

func (i *inquiry) alter(topic, key string, value *string, op kmsg.IncrementalAlterConfigOp) (int16, error) {
	r := kmsg.NewPtrIncrementalAlterConfigsRequest()
	r.Version = 1
	resource := kmsg.NewIncrementalAlterConfigsRequestResource()
	resource.ResourceType, resource.ResourceName = kmsg.ConfigResourceTypeTopic, topic
	config := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
	config.Name, config.Value, config.Op = key, value, op
	resource.Configs = append(resource.Configs, config)
	r.Resources = append(r.Resources, resource)
	answer, err := i.ask(r)
	if err != nil {
		return 0, err
	}
	return answer.(*kmsg.IncrementalAlterConfigsResponse).Resources[0].ErrorCode, nil
}

func setting(key, value string) func(*inquiry) (int16, error) {
	return func(i *inquiry) (int16, error) {
		return i.alter(i.topic, key, &value, kmsg.IncrementalAlterConfigOpSet)
	}
}

var configQuestions = []question{
	{"describe-configs-unknown-topic", func(i *inquiry) (int16, error) {
		return i.describeConfigs(kmsg.ConfigResourceTypeTopic, i.mark+"-none")
	}},
	{"describe-configs-bad-topic", func(i *inquiry) (int16, error) {
		return i.describeConfigs(kmsg.ConfigResourceTypeTopic, "bad name!")
	}},
	{"describe-configs-other-broker", func(i *inquiry) (int16, error) {
		return i.describeConfigs(kmsg.ConfigResourceTypeBroker, "77")
	}},
	{"describe-configs-broker-not-a-number", func(i *inquiry) (int16, error) {
		return i.describeConfigs(kmsg.ConfigResourceTypeBroker, "one")
	}},
	{"describe-configs-this-broker", func(i *inquiry) (int16, error) {
		return i.describeConfigs(kmsg.ConfigResourceTypeBroker, "1")
	}},
	{"describe-configs-unknown-kind", func(i *inquiry) (int16, error) {
		return i.describeConfigs(kmsg.ConfigResourceType(3), "x")
	}},
	{"alter-unknown-topic", func(i *inquiry) (int16, error) {
		value := "1"
		return i.alter(i.mark+"-none", "retention.ms", &value, kmsg.IncrementalAlterConfigOpSet)
	}},
	{"alter-unknown-key", setting("no.such.key", "1")},
	{"alter-bad-value", setting("retention.ms", "long")},
	{"alter-out-of-range", setting("max.message.bytes", "-1")},
	{"alter-bad-replica-count", setting("min.insync.replicas", "0")},
	{"alter-append-to-a-number", func(i *inquiry) (int16, error) {
		value := "1"
		return i.alter(i.topic, "retention.ms", &value, kmsg.IncrementalAlterConfigOpAppend)
	}},
	{"alter-append-to-a-list", func(i *inquiry) (int16, error) {
		value := "compact"
		return i.alter(i.topic, "cleanup.policy", &value, kmsg.IncrementalAlterConfigOpAppend)
	}},
	{"alter-subtract-from-a-list", func(i *inquiry) (int16, error) {
		value := "compact"
		return i.alter(i.topic, "cleanup.policy", &value, kmsg.IncrementalAlterConfigOpSubtract)
	}},
	{"alter-unknown-operation", func(i *inquiry) (int16, error) {
		value := "1"
		return i.alter(i.topic, "retention.ms", &value, kmsg.IncrementalAlterConfigOp(9))
	}},
	{"alter-set-null", func(i *inquiry) (int16, error) {
		return i.alter(i.topic, "retention.ms", nil, kmsg.IncrementalAlterConfigOpSet)
	}},
	{"alter-delete-what-is-not-set", func(i *inquiry) (int16, error) {
		return i.alter(i.topic, "retention.ms", nil, kmsg.IncrementalAlterConfigOpDelete)
	}},
}

func (i *inquiry) listOffsets(topic string, partition, epoch int32, timestamp int64) (int16, error) {
	r := kmsg.NewPtrListOffsetsRequest()
	r.Version, r.ReplicaID = 8, -1
	t := kmsg.NewListOffsetsRequestTopic()
	t.Topic = topic
	p := kmsg.NewListOffsetsRequestTopicPartition()
	p.Partition, p.CurrentLeaderEpoch, p.Timestamp = partition, epoch, timestamp
	t.Partitions = append(t.Partitions, p)
	r.Topics = append(r.Topics, t)
	answer, err := i.ask(r)
	if err != nil {
		return 0, err
	}
	return answer.(*kmsg.ListOffsetsResponse).Topics[0].Partitions[0].ErrorCode, nil
}

// fetch asks for one partition, at once; the code of the partition, or else of the whole.
func (i *inquiry) fetch(id [16]byte, partition, epoch int32, offset int64, session, sessionEpoch int32) (int16, error) {
	r := kmsg.NewPtrFetchRequest()
	r.Version, r.MinBytes, r.MaxBytes, r.MaxWaitMillis = 16, 0, 1<<20, 0
	r.SessionID, r.SessionEpoch = session, sessionEpoch
	t := kmsg.NewFetchRequestTopic()
	t.TopicID = id
	p := kmsg.NewFetchRequestTopicPartition()
	p.Partition, p.CurrentLeaderEpoch, p.FetchOffset, p.PartitionMaxBytes = partition, epoch, offset, 1<<20
	t.Partitions = append(t.Partitions, p)
	r.Topics = append(r.Topics, t)
	answer, err := i.ask(r)
	if err != nil {
		return 0, err
	}
	found := answer.(*kmsg.FetchResponse)
	if found.ErrorCode != 0 || len(found.Topics) == 0 {
		return found.ErrorCode, nil
	}
	return found.Topics[0].Partitions[0].ErrorCode, nil
}

func listing(partition, epoch int32, timestamp int64) func(*inquiry) (int16, error) {
	return func(i *inquiry) (int16, error) { return i.listOffsets(i.topic, partition, epoch, timestamp) }
}

var logQuestions = []question{
	{"list-offsets-unknown-topic", func(i *inquiry) (int16, error) { return i.listOffsets(i.mark+"-none", 0, -1, -1) }},
	{"list-offsets-unknown-partition", listing(99, -1, -1)},
	{"list-offsets-newer-epoch", listing(0, 1_000_000, -1)},
	{"list-offsets-latest", listing(0, -1, -1)},
	{"list-offsets-max-timestamp-of-nothing", listing(0, -1, -3)},
	{"list-offsets-earliest-local", listing(0, -1, -4)},
	{"list-offsets-unknown-special", listing(0, -1, -77)},
	{"list-offsets-partition-twice", func(i *inquiry) (int16, error) {
		r := kmsg.NewPtrListOffsetsRequest()
		r.Version, r.ReplicaID = 8, -1
		t := kmsg.NewListOffsetsRequestTopic()
		t.Topic = i.topic
		p := kmsg.NewListOffsetsRequestTopicPartition()
		p.Timestamp, p.CurrentLeaderEpoch = -1, -1
		t.Partitions = append(t.Partitions, p, p)
		r.Topics = append(r.Topics, t)
		answer, err := i.ask(r)
		if err != nil {
			return 0, err
		}
		return answer.(*kmsg.ListOffsetsResponse).Topics[0].Partitions[0].ErrorCode, nil
	}},
	{"fetch-unknown-id", func(i *inquiry) (int16, error) { return i.fetch([16]byte{1, 2}, 0, -1, 0, 0, -1) }},
	{"fetch-unknown-partition", func(i *inquiry) (int16, error) { return i.fetch(i.topicID, 99, -1, 0, 0, -1) }},
	{"fetch-behind-the-end", func(i *inquiry) (int16, error) { return i.fetch(i.topicID, 0, -1, 1<<40, 0, -1) }},
	{"fetch-before-the-start", func(i *inquiry) (int16, error) { return i.fetch(i.topicID, 0, -1, -5, 0, -1) }},
	{"fetch-newer-epoch", func(i *inquiry) (int16, error) { return i.fetch(i.topicID, 0, 1_000_000, 0, 0, -1) }},
	{"fetch-at-the-end", func(i *inquiry) (int16, error) { return i.fetch(i.topicID, 0, -1, 0, 0, -1) }},
	{"fetch-unknown-session", func(i *inquiry) (int16, error) { return i.fetch(i.topicID, 0, -1, 0, 12345, 1) }},
	{"fetch-session-epoch-without-session", func(i *inquiry) (int16, error) { return i.fetch(i.topicID, 0, -1, 0, 0, 5) }},
	{"epoch-end-unknown-partition", func(i *inquiry) (int16, error) { return i.epochEnd(99, -1, 0) }},
	{"epoch-end-newer-current-epoch", func(i *inquiry) (int16, error) { return i.epochEnd(0, 1_000_000, 0) }},
	{"epoch-end-of-an-unknown-epoch", func(i *inquiry) (int16, error) { return i.epochEnd(0, -1, 1_000_000) }},
}

func (i *inquiry) epochEnd(partition, current, epoch int32) (int16, error) {
	r := kmsg.NewPtrOffsetForLeaderEpochRequest()
	r.Version, r.ReplicaID = 4, -1
	t := kmsg.NewOffsetForLeaderEpochRequestTopic()
	t.Topic = i.topic
	p := kmsg.NewOffsetForLeaderEpochRequestTopicPartition()
	p.Partition, p.CurrentLeaderEpoch, p.LeaderEpoch = partition, current, epoch
	t.Partitions = append(t.Partitions, p)
	r.Topics = append(r.Topics, t)
	answer, err := i.ask(r)
	if err != nil {
		return 0, err
	}
	return answer.(*kmsg.OffsetForLeaderEpochResponse).Topics[0].Partitions[0].ErrorCode, nil
}
