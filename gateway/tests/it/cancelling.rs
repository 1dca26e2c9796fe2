//! `DELETE /deliveries/{id}`.

use domain::delivery::{Delivery, DeliveryStatus};
use domain::drone::{Drone, DroneStatus};
use domain::keys;
use domain::zones::ZonesConfig;
use kv_client::testing::Call;
use serde_json::Value;

use crate::world::World;

/// An order that drone-1 has taken.
async fn assigned(world: &World) -> (String, Delivery) {
    let id = world.order().await["id"].as_str().unwrap().to_owned();
    let delivery: Delivery = world.kv.record(&keys::delivery(&id)).unwrap();
    let delivery = delivery.assign("drone-1", 1.0).unwrap();
    let drone = Drone::new(1, &ZonesConfig::rome(2, 2).unwrap()).take(&id).unwrap();
    world.kv.set(&keys::delivery(&id), &delivery);
    world.kv.set(&keys::drone("drone-1"), &drone);
    (id, delivery)
}

#[tokio::test]
async fn a_waiting_order_is_cancelled_once() {
    let world = World::start().await;
    let id = world.order().await["id"].as_str().unwrap().to_owned();
    let (status, record) = world.delete(&format!("/deliveries/{id}")).await;
    assert_eq!((status, record["status"].as_str().unwrap()), (200, "cancelled"));
    assert!(record["cancelled_at"].is_number());
    assert_eq!(world.kv.value(&keys::open(&id)), None);
    assert_eq!(world.delete(&format!("/deliveries/{id}")).await, (200, record));
    assert_eq!(world.delete("/deliveries/none").await.0, 404);
}

#[tokio::test]
async fn an_assigned_order_frees_its_drone_whoever_writes_meanwhile() {
    let world = World::start().await;
    let (id, _) = assigned(&world).await;
    // The simulator moves the drone just before it is freed.
    world.kv.before_next(Call::Cas, |store| {
        let mut drone = store.value("drone:drone-1").unwrap();
        drone["battery"] = Value::from(55.0);
        store.set("drone:drone-1", &drone);
    });
    assert_eq!(world.delete(&format!("/deliveries/{id}")).await.0, 200);
    let drone: Drone = world.kv.record(&keys::drone("drone-1")).unwrap();
    assert_eq!((drone.status, drone.current_delivery), (DroneStatus::Idle, None));
    assert!((drone.battery - 55.0).abs() < 1e-9, "the simulator's fields are kept");
}

#[tokio::test]
async fn after_pick_up_it_is_too_late() {
    let world = World::start().await;
    let (id, delivery) = assigned(&world).await;
    let flying = delivery.first_movement(2.0).unwrap().at_origin(3.0).unwrap();
    world.kv.set(&keys::delivery(&id), &flying);
    let (status, body) = world.delete(&format!("/deliveries/{id}")).await;
    assert_eq!(status, 409, "{body}");
    assert_eq!(body["status"], DeliveryStatus::InFlight.name());
    assert!(world.kv.value(&keys::open(&id)).is_some());
}

#[tokio::test]
async fn an_assignment_that_comes_first_is_cancelled_too() {
    let world = World::start().await;
    let id = world.order().await["id"].as_str().unwrap().to_owned();
    let delivery: Delivery = world.kv.record(&keys::delivery(&id)).unwrap();
    let taken = delivery.assign("drone-9", 1.0).unwrap();
    let key = keys::delivery(&id);
    // The index's own write is a CAS as well: let it come first.
    world.until("the index has it", async || world.index().len() == 1).await;
    world.kv.before_next(Call::Cas, move |store| {
        store.set(&key, &taken);
    });
    let (status, record) = world.delete(&format!("/deliveries/{id}")).await;
    assert_eq!(
        (status, record["status"].as_str(), record["drone_id"].as_str()),
        (200, Some("cancelled"), Some("drone-9"))
    );
}
