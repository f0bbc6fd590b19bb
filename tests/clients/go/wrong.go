package main

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Wrong requests, each at the version that a client of today would use, through an encoder that is not the broker's
// own. Each is told with the error code it got; kafka-answers.txt has the codes that Kafka gives.

// asker is a plain connection to each broker: no retries, no negotiation, so that each answer is to the request as it was
// written.
type asker struct {
	// home is node 1. It leads the partitions that are asked about, and takes whatever any broker may answer.
	home string
	// alone: there is no other broker, so nothing has to be found.
	alone bool
	// coordinators by group, as far as they were looked for.
	coordinators map[string]string
	connections  map[string]*connection
}

type connection struct {
	net.Conn
	last int32
}

func (a *asker) ask(request kmsg.Request) (kmsg.Response, error) {
	return a.askAt(a.placeOf(request), request)
}

func (a *asker) askAt(address string, request kmsg.Request) (kmsg.Response, error) {
	to := a.connections[address]
	if to == nil {
		conn, err := net.DialTimeout("tcp", address, 10*time.Second)
		if err != nil {
			return nil, err
		}
		to = &connection{Conn: conn}
		a.connections[address] = to
	}
	response, err := to.exchange(request)
	if err != nil {
		to.Close()
		delete(a.connections, address)
	}
	return response, err
}

// placeOf is the broker that a request is for: a group's coordinator, or home.
func (a *asker) placeOf(request kmsg.Request) string {
	group, about := groupOf(request)
	if a.alone || !about {
		return a.home
	}
	if known, looked := a.coordinators[group]; looked {
		return known
	}
	address := a.coordinatorOf(group)
	if address == "" {
		return a.home
	}
	a.coordinators[group] = address
	return address
}

// coordinatorOf looks for the coordinator of a group; empty if there is none yet. Nobody may ask for that of the group
// without a name, which some requests have a use for all the same: it is the leader of the first partition.
func (a *asker) coordinatorOf(group string) string {
	if group == "" {
		r := kmsg.NewPtrMetadataRequest()
		r.Version = 12
		t := kmsg.NewMetadataRequestTopic()
		t.Topic = kmsg.StringPtr("__consumer_offsets")
		r.Topics = append(r.Topics, t)
		answer, err := a.askAt(a.home, r)
		if err != nil {
			return ""
		}
		found := answer.(*kmsg.MetadataResponse)
		for _, partition := range found.Topics[0].Partitions {
			for _, broker := range found.Brokers {
				if partition.Partition == 0 && partition.Leader == broker.NodeID {
					return net.JoinHostPort(broker.Host, strconv.Itoa(int(broker.Port)))
				}
			}
		}
		return ""
	}
	r := kmsg.NewPtrFindCoordinatorRequest()
	r.Version, r.CoordinatorKeys = 5, []string{group}
	answer, err := a.askAt(a.home, r)
	if err != nil {
		return ""
	}
	found := answer.(*kmsg.FindCoordinatorResponse).Coordinators
	if len(found) == 0 || found[0].ErrorCode != 0 {
		return ""
	}
	return net.JoinHostPort(found[0].Host, strconv.Itoa(int(found[0].Port)))
}

// groupOf is the group that a request is about, if it is about one.
func groupOf(request kmsg.Request) (group string, about bool) {
	switch r := request.(type) {
	case *kmsg.JoinGroupRequest:
		return r.Group, true
	case *kmsg.HeartbeatRequest:
		return r.Group, true
	case *kmsg.SyncGroupRequest:
		return r.Group, true
	case *kmsg.LeaveGroupRequest:
		return r.Group, true
	case *kmsg.OffsetCommitRequest:
		return r.Group, true
	case *kmsg.OffsetDeleteRequest:
		return r.Group, true
	case *kmsg.OffsetFetchRequest:
		return r.Groups[0].Group, true
	case *kmsg.DescribeGroupsRequest:
		return r.Groups[0], true
	case *kmsg.DeleteGroupsRequest:
		return r.Groups[0], true
	}
	return "", false
}

func (a *connection) exchange(request kmsg.Request) (kmsg.Response, error) {
	a.last++
	a.SetDeadline(time.Now().Add(20 * time.Second))
	frame := kmsg.NewRequestFormatter(kmsg.FormatterClientID("wrong")).AppendRequest(nil, request, a.last)
	if _, err := a.Write(frame); err != nil {
		return nil, err
	}
	var size [4]byte
	if _, err := io.ReadFull(a, size[:]); err != nil {
		return nil, err
	}
	body := make([]byte, binary.BigEndian.Uint32(size[:]))
	if _, err := io.ReadFull(a, body); err != nil {
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
	brokers := strings.Split(o.Bootstrap, ",")
	asker := &asker{
		home: brokers[0], alone: len(brokers) == 1,
		coordinators: map[string]string{}, connections: map[string]*connection{},
	}
	i := &inquiry{asker: asker, topic: o.Mark, mark: o.Mark}
	if err := i.prepare(o.Replicas); err != nil {
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

// prepare makes the topic and waits until node 1 leads it.
func (i *inquiry) prepare(replicas int16) error {
	nodes := []int32{}
	for node := range int32(replicas) {
		nodes = append(nodes, node+1)
	}
	code, err := i.create(i.topic, func(t *kmsg.CreateTopicsRequestTopic) {
		t.NumPartitions, t.ReplicationFactor = -1, -1
		for partition := range int32(2) {
			t.ReplicaAssignment = append(t.ReplicaAssignment,
				kmsg.CreateTopicsRequestTopicReplicaAssignment{Partition: partition, Replicas: nodes})
		}
	})
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
				return i.awaitCoordinators()
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	return fmt.Errorf("%s did not come to be", i.topic)
}

// awaitCoordinators waits until each group that is asked about has its coordinator.
func (i *inquiry) awaitCoordinators() error {
	deadline := time.Now().Add(30 * time.Second)
	for _, suffix := range []string{"-none", "-join", "-join-none", "-commit", "-commit-none"} {
		for {
			code, err := i.heartbeat(i.mark+suffix, "x")
			if err != nil {
				return err
			}
			// Not available, loading, not here: all pass.
			if code != 14 && code != 15 && code != 16 {
				break
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("there is no group coordinator")
			}
			if _, err := i.findCoordinator(i.mark+suffix, 0); err != nil {
				return err
			}
			delete(i.coordinators, i.mark+suffix)
			time.Sleep(50 * time.Millisecond)
		}
	}
	return nil
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
	{"create-too-many-replicas", creating("%-z", func(t *kmsg.CreateTopicsRequestTopic) { t.ReplicationFactor = 20 })},
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
