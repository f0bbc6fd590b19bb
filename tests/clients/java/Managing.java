import com.fasterxml.jackson.databind.JsonNode;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.GroupListing;
import org.apache.kafka.clients.admin.NewPartitionReassignment;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;

/** {@code admin}: topics, their configs, replicas and groups through Java's admin client. */
final class Managing {
    private Managing() {}

    static void admin(JsonNode order) throws Exception {
        String topic = order.path("topic").asText();
        Map<String, String> configs = new HashMap<>();
        order.path("configs").fields().forEachRemaining(entry -> configs.put(entry.getKey(), entry.getValue().asText()));
        ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        try (Admin admin = Admin.create(Driver.quick(order))) {
            switch (order.get("op").asText()) {
                case "create" -> {
                    short replicas = (short) order.get("replicas").asInt();
                    NewTopic wanted = new NewTopic(topic, order.get("partitions").asInt(), replicas).configs(configs);
                    admin.createTopics(List.of(wanted)).all().get();
                }
                case "delete" -> admin.deleteTopics(List.of(topic)).all().get();
                case "describe" -> {
                    var partitions = admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic).partitions();
                    Driver.say("topic", "partitions", partitions.size(),
                            "leaders", partitions.stream().map(p -> p.leader() == null ? -1 : p.leader().id()).toList());
                }
                case "configs" -> {
                    Map<String, String> values = new TreeMap<>();
                    admin.describeConfigs(List.of(resource)).all().get().get(resource).entries()
                            .forEach(entry -> values.put(entry.name(), entry.value()));
                    Driver.say("configs", "values", values);
                }
                case "alter" -> {
                    List<AlterConfigOp> changes = new ArrayList<>();
                    configs.forEach((name, value) ->
                            changes.add(new AlterConfigOp(new ConfigEntry(name, value), AlterConfigOp.OpType.SET)));
                    admin.incrementalAlterConfigs(Map.of(resource, changes)).all().get();
                }
                case "reassign" -> {
                    List<Integer> nodes = new ArrayList<>();
                    order.get("nodes").forEach(node -> nodes.add(node.asInt()));
                    TopicPartition place = new TopicPartition(topic, order.get("partition").asInt());
                    admin.alterPartitionReassignments(Map.of(place, Optional.of(new NewPartitionReassignment(nodes))))
                            .all().get();
                }
                case "groups" -> Driver.say("groups", "names",
                        admin.listGroups().all().get().stream().map(GroupListing::groupId).sorted().toList());
                case "delete_group" -> admin.deleteConsumerGroups(List.of(order.get("group").asText())).all().get();
                default -> throw new IllegalArgumentException("there is no admin operation " + order.get("op"));
            }
        }
    }
}
