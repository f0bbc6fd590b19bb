package main

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Wrong requests, each at the version that a client of today would use, through an encoder that is not the broker's
// own. Each is told with the error code it got; kafka-answers.txt has the codes that Kafka gives.

// asker is one plain connection: no retries, no negotiation, so that each answer is to the request as it was written.
type asker struct {
	bootstrap string
	conn      net.Conn
	last      int32
}

func (a *asker) ask(request kmsg.Request) (kmsg.Response, error) {
	if a.conn == nil {
		conn, err := net.DialTimeout("tcp", a.bootstrap, 10*time.Second)
		if err != nil {
			return nil, err
		}
		a.conn = conn
	}
	response, err := a.exchange(request)
	if err != nil {
		a.conn.Close()
		a.conn = nil
	}
	return response, err
}

func (a *asker) exchange(request kmsg.Request) (kmsg.Response, error) {
	a.last++
	a.conn.SetDeadline(time.Now().Add(20 * time.Second))
	frame := kmsg.NewRequestFormatter(kmsg.FormatterClientID("wrong")).AppendRequest(nil, request, a.last)
	if _, err := a.conn.Write(frame); err != nil {
		return nil, err
	}
	var size [4]byte
	if _, err := io.ReadFull(a.conn, size[:]); err != nil {
		return nil, err
	}
	body := make([]byte, binary.BigEndian.Uint32(size[:]))
	if _, err := io.ReadFull(a.conn, body); err != nil {
		return nil, err
	}
	if number := int32(binary.BigEndian.Uint32(body)); number != a.last {
		return nil, fmt.Errorf("correlation id %d instead of %d", number, a.last)
	}
	body = body[4:]
	response := request.ResponseKind()
	response.SetVersion(request.GetVersion())
	if response.IsFlexible() && response.Key() != 18 {
		body = body[1:] // no tagged field is known in a header
	}
	return response, response.ReadFrom(body)
}

// closed stands for no answer at all.
const closed = -1000

type question struct {
	name string
	ask  func(*inquiry) (int16, error)
}

// inquiry is what the questions share: a topic with two partitions, and names that nobody else uses.
type inquiry struct {
	*asker
	topic   string
	topicID [16]byte
	mark    string
}

func wrong(o *order) error {
	i := &inquiry{asker: &asker{bootstrap: o.Bootstrap}, topic: o.Mark, mark: o.Mark}
	if err := i.prepare(); err != nil {
		return err
	}
	for _, part := range [][]question{topicQuestions, configQuestions, logQuestions, produceQuestions, groupQuestions} {
		for _, q := range part {
			code, err := q.ask(i)
			note := ""
			if err != nil {
				code, note = closed, err.Error()
			}
			say("wrong", event{"name": q.name, "code": code, "note": note})
		}
	}
	return nil
}

// prepare makes the topic and waits until the broker leads it.
func (i *inquiry) prepare() error {
	code, err := i.create(i.topic, func(t *kmsg.CreateTopicsRequestTopic) { t.NumPartitions = 2 })
	if err != nil || code != 0 {
		return fmt.Errorf("create %s: %d %v", i.topic, code, err)
	}
	deadline := time.Now().Add(20 * time.Second)
	for time.Now().Before(deadline) {
		found, err := i.metadata(i.topic, [16]byte{})
		if err != nil {
			return err
		}
		if found.ErrorCode == 0 && len(found.Partitions) == 2 && found.Partitions[0].ErrorCode == 0 {
			i.topicID = found.TopicID
			code, err := i.listOffsets(i.topic, 1, -1, -1)
			if err == nil && code == 0 {
				return i.awaitCoordinator()
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	return fmt.Errorf("%s did not come to be", i.topic)
}

func (i *inquiry) awaitCoordinator() error {
	deadline := time.Now().Add(30 * time.Second)
	for time.Now().Before(deadline) {
		code, err := i.heartbeat(i.mark+"-none", "x")
		if err != nil {
			return err
		}
		// Not available, loading, not here: all pass.
		if code != 14 && code != 15 && code != 16 {
			return nil
		}
		if _, err := i.findCoordinator(i.mark+"-none", 0); err != nil {
			return err
		}
		time.Sleep(50 * time.Millisecond)
	}
	return fmt.Errorf("there is no group coordinator")
}

func (i *inquiry) metadata(name string, id [16]byte) (kmsg.MetadataResponseTopic, error) {
	r := kmsg.NewPtrMetadataRequest()
	r.Version = 12
	t := kmsg.NewMetadataRequestTopic()
	if name != "" {
		t.Topic = &name
	}
	t.TopicID = id
	r.Topics = append(r.Topics, t)
	r.AllowAutoTopicCreation = false
	answer, err := i.ask(r)
	if err != nil {
		return kmsg.MetadataResponseTopic{}, err
	}
	return answer.(*kmsg.MetadataResponse).Topics[0], nil
}

func (i *inquiry) create(name string, change func(*kmsg.CreateTopicsRequestTopic)) (int16, error) {
	t := kmsg.NewCreateTopicsRequestTopic()
	t.Topic, t.NumPartitions, t.ReplicationFactor = name, 1, 1
	change(&t)
	return i.createAll(t)
}

func (i *inquiry) createAll(topics ...kmsg.CreateTopicsRequestTopic) (int16, error) {
	r := kmsg.NewPtrCreateTopicsRequest()
	r.Version, r.Topics, r.TimeoutMillis = 7, topics, 10_000
	answer, err := i.ask(r)
	if err != nil {
		return 0, err
	}
	return answer.(*kmsg.CreateTopicsResponse).Topics[0].ErrorCode, nil
}

func creating(name string, change func(*kmsg.CreateTopicsRequestTopic)) func(*inquiry) (int16, error) {
	return func(i *inquiry) (int16, error) { return i.create(strings.ReplaceAll(name, "%", i.mark), change) }
}

func plain(*kmsg.CreateTopicsRequestTopic) {}

func with(key, value string) func(*kmsg.CreateTopicsRequestTopic) {
	return func(t *kmsg.CreateTopicsRequestTopic) {
		config := kmsg.NewCreateTopicsRequestTopicConfig()
		config.Name, config.Value = key, &value
		t.Configs = append(t.Configs, config)
	}
}

var topicQuestions = []question{
	{"create-existing", creating("%", plain)},
	{"create-bad-character", creating("bad name!", plain)},
	{"create-empty-name", creating("", plain)},
	{"create-dot", creating(".", plain)},
	{"create-long-name", creating(strings.Repeat("x", 250), plain)},
	{"create-colliding-name", func(i *inquiry) (int16, error) {
		if code, err := i.create(i.mark+"_c_d", plain); err != nil || code != 0 {
			return code, err
		}
		return i.create(i.mark+".c_d", plain)
	}},
	{"create-zero-partitions", creating("%-z", func(t *kmsg.CreateTopicsRequestTopic) { t.NumPartitions = 0 })},
	{"create-minus-two-partitions", creating("%-z", func(t *kmsg.CreateTopicsRequestTopic) { t.NumPartitions = -2 })},
	{"create-zero-replicas", creating("%-z", func(t *kmsg.CreateTopicsRequestTopic) { t.ReplicationFactor = 0 })},
	{"create-two-replicas", creating("%-z", func(t *kmsg.CreateTopicsRequestTopic) { t.ReplicationFactor = 2 })},
	{"create-unknown-config", creating("%-z", with("no.such.key", "1"))},
	{"create-config-not-a-number", creating("%-z", with("retention.ms", "long"))},
	{"create-config-out-of-range", creating("%-z", with("segment.bytes", "1"))},
	{"create-config-not-in-list", creating("%-z", with("cleanup.policy", "burn"))},
	{"create-config-bad-compression", creating("%-z", with("compression.type", "rar"))},
	{"create-default-partitions", creating("%-default", func(t *kmsg.CreateTopicsRequestTopic) {
		t.NumPartitions, t.ReplicationFactor = -1, -1
	})},
	{"create-assignment-and-count", creating("%-z", func(t *kmsg.CreateTopicsRequestTopic) {
		t.ReplicaAssignment = []kmsg.CreateTopicsRequestTopicReplicaAssignment{{Partition: 0, Replicas: []int32{1}}}
	})},
	{"create-assignment-to-stranger", creating("%-z", func(t *kmsg.CreateTopicsRequestTopic) {
		t.NumPartitions, t.ReplicationFactor = -1, -1
		t.ReplicaAssignment = []kmsg.CreateTopicsRequestTopicReplicaAssignment{{Partition: 0, Replicas: []int32{77}}}
	})},
	{"create-assignment-with-hole", creating("%-z", func(t *kmsg.CreateTopicsRequestTopic) {
		t.NumPartitions, t.ReplicationFactor = -1, -1
		t.ReplicaAssignment = []kmsg.CreateTopicsRequestTopicReplicaAssignment{{Partition: 1, Replicas: []int32{1}}}
	})},
	{"create-twice-in-one-request", func(i *inquiry) (int16, error) {
		t := kmsg.NewCreateTopicsRequestTopic()
		t.Topic, t.NumPartitions, t.ReplicationFactor = i.mark+"-twice", 1, 1
		return i.createAll(t, t)
	}},
	{"create-validate-only", func(i *inquiry) (int16, error) {
		r := kmsg.NewPtrCreateTopicsRequest()
		r.Version, r.TimeoutMillis, r.ValidateOnly = 7, 10_000, true
		t := kmsg.NewCreateTopicsRequestTopic()
		t.Topic, t.NumPartitions, t.ReplicationFactor = i.mark+"-validated", 1, 1
		r.Topics = append(r.Topics, t)
		if answer, err := i.ask(r); err != nil || answer.(*kmsg.CreateTopicsResponse).Topics[0].ErrorCode != 0 {
			return closed, err
		}
		found, err := i.metadata(i.mark+"-validated", [16]byte{})
		return found.ErrorCode, err
	}},
	{"delete-unknown-name", func(i *inquiry) (int16, error) { return i.delete(i.mark+"-none", [16]byte{}) }},
	{"delete-unknown-id", func(i *inquiry) (int16, error) { return i.delete("", [16]byte{1, 2, 3}) }},
	{"metadata-unknown-name", func(i *inquiry) (int16, error) {
		found, err := i.metadata(i.mark+"-none", [16]byte{})
		return found.ErrorCode, err
	}},
	{"metadata-bad-name", func(i *inquiry) (int16, error) {
		found, err := i.metadata("bad name!", [16]byte{})
		return found.ErrorCode, err
	}},
	{"metadata-unknown-id", func(i *inquiry) (int16, error) {
		found, err := i.metadata("", [16]byte{1, 2, 3})
		return found.ErrorCode, err
	}},
	{"api-versions-bad-software-name", func(i *inquiry) (int16, error) {
		r := kmsg.NewPtrApiVersionsRequest()
		r.Version, r.ClientSoftwareName, r.ClientSoftwareVersion = 3, "-bad-", "1"
		answer, err := i.ask(r)
		if err != nil {
			return 0, err
		}
		return answer.(*kmsg.ApiVersionsResponse).ErrorCode, nil
	}},
}

func (i *inquiry) delete(name string, id [16]byte) (int16, error) {
	r := kmsg.NewPtrDeleteTopicsRequest()
	r.Version, r.TimeoutMillis = 6, 10_000
	t := kmsg.NewDeleteTopicsRequestTopic()
	if name != "" {
		t.Topic = &name
	}
	t.TopicID = id
	r.Topics = append(r.Topics, t)
	answer, err := i.ask(r)
	if err != nil {
		return 0, err
	}
	return answer.(*kmsg.DeleteTopicsResponse).Topics[0].ErrorCode, nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// batch makes a record batch of `count` records with small values, and lets `change` spoil it before the CRC is taken.
func batch(count int32, change func(*kmsg.RecordBatch)) []byte {
	now := time.Now().UnixMilli()
	b := kmsg.RecordBatch{
		PartitionLeaderEpoch: -1, Magic: 2, LastOffsetDelta: count - 1, FirstTimestamp: now, MaxTimestamp: now,
		ProducerID: -1, ProducerEpoch: -1, FirstSequence: -1, NumRecords: count,
	}
	for n := range count {
		r := kmsg.Record{OffsetDelta: n, Key: []byte("k"), Value: []byte("v")}
		body := r.AppendTo(nil)
		r.Length = int32(len(body) - 1)
		b.Records = r.AppendTo(b.Records)
	}
	change(&b)
	return seal(b)
}

func seal(b kmsg.RecordBatch) []byte {
	b.Length = int32(49 + len(b.Records))
	raw := b.AppendTo(nil)
	binary.BigEndian.PutUint32(raw[17:], crc32.Checksum(raw[21:], castagnoli))
	return raw
}
