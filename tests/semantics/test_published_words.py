"""The words of every class of UCF101 and HMDB51 under the published rules, name by name."""

import pytest

from engine.semantics.class_lists import read_class_names
from engine.semantics.words import class_words

# One class after the other, name: words. Checked by hand against the rules of the authors' code: verbs by WordNet 3.0 (the
# shortest candidate: riding is rid, shot is shoot), the hand replacements as they stand.
UCF101 = """
ApplyEyeMakeup: apply eye makeup; ApplyLipstick: apply lipstick; Archery: archery; BabyCrawling: baby crawl;
BalanceBeam: balance beam; BandMarching: band march; BaseballPitch: baseball pitch; Basketball: basketball;
BasketballDunk: basketball dunk; BenchPress: bench press; Biking: bike; Billiards: billiards; BlowDryHair: blow dry hair;
BlowingCandles: blow candle; BodyWeightSquats: body weight squat; Bowling: bowl; BoxingPunchingBag: box punch bag;
BoxingSpeedBag: box speed bag; BreastStroke: breast stroke; BrushingTeeth: brush teeth; CleanAndJerk: weight lift;
CliffDiving: cliff dive; CricketBowling: cricket bowl; CricketShot: cricket shoot; CuttingInKitchen: cut kitchen;
Diving: dive; Drumming: drum; Fencing: fence; FieldHockeyPenalty: field hockey penalty; FloorGymnastics: floor gymnastics;
FrisbeeCatch: frisbee catch; FrontCrawl: front crawl; GolfSwing: golf swing; Haircut: haircut; Hammering: hammer;
HammerThrow: hammer throw; HandstandPushups: handstand pushups; HandstandWalking: handstand walk; HeadMassage: head massage;
HighJump: high jump; HorseRace: horse race; HorseRiding: horse rid; HulaHoop: hula hoop; IceDancing: ice dance;
JavelinThrow: javelin throw; JugglingBalls: juggle ball; JumpingJack: jump jack; JumpRope: jump rope; Kayaking: kayak;
Knitting: knit; LongJump: long jump; Lunges: lunge; MilitaryParade: military parade; Mixing: mix; MoppingFloor: mop floor;
Nunchucks: nunchucks; ParallelBars: parallel bar; PizzaTossing: pizza toss; PlayingCello: play cello; PlayingDaf: play daf;
PlayingDhol: play dhol; PlayingFlute: play flute; PlayingGuitar: play guitar; PlayingPiano: play piano;
PlayingSitar: play sitar; PlayingTabla: play tabla; PlayingViolin: play violin; PoleVault: pole vault;
PommelHorse: pommel horse; PullUps: pullups; Punch: punch; PushUps: pushups; Rafting: raft;
RockClimbingIndoor: rock climb indoor; RopeClimbing: rope climb; Rowing: row; SalsaSpin: salsa spin;
ShavingBeard: shave beard; Shotput: shotput; SkateBoarding: skate board; Skiing: ski; Skijet: Skyjet; SkyDiving: sky dive;
SoccerJuggling: soccer juggle; SoccerPenalty: soccer penalty; StillRings: still ring; SumoWrestling: sumo wrestle;
Surfing: surf; Swing: swing; TableTennisShot: table tennis shoot; TaiChi: taichi; TennisSwing: tennis swing;
ThrowDiscus: throw disc; TrampolineJumping: trampoline jump; Typing: type; UnevenBars: uneven bar;
VolleyballSpiking: volleyball spike; WalkingWithDog: walk dog; WallPushups: wall pushups; WritingOnBoard: write on board;
YoYo: yoyo
"""
HMDB51 = """
brush_hair: brush hair; cartwheel: cartwheel; catch: catch; chew: chew; clap: clap; climb: climb;
climb_stairs: climb stairs; dive: dive; draw_sword: draw sword; dribble: dribble; drink: drink; eat: eat;
fall_floor: fall floor; fencing: fence; flic_flac: flic flac; golf: golf; handstand: handstand; hit: hit; hug: hug;
jump: jump; kick: kick; kick_ball: kick ball; kiss: kiss; laugh: laugh; pick: pick; pour: pour; pullup: pullup;
punch: punch; push: push; pushup: pushup; ride_bike: ride bike; ride_horse: ride horse; run: run; shake_hands: shake hand;
shoot_ball: shoot ball; shoot_bow: shoot bow; shoot_gun: shoot gun; sit: sit; situp: situp; smile: smile; smoke: smoke;
somersault: somersault; stand: stand; swing_baseball: swing baseball; sword: sword; sword_exercise: sword exercise;
talk: talk; throw: throw; turn: turn; walk: walk; wave: wave
"""


def table(text: str) -> dict[str, str]:
    """Class name -> its words."""
    pairs = (entry.split(":") for entry in text.split(";"))
    return {name.strip(): words.strip() for name, words in pairs}


@pytest.mark.parametrize(("data_set", "text", "num_classes"), [("ucf101", UCF101, 101), ("hmdb51", HMDB51, 51)])
def test_words_of_every_published_class(data_set, text, num_classes):
    expected = table(text)
    assert len(expected) == num_classes
    for rules in (data_set, "auto"):
        assert {name: " ".join(class_words(name, rules)) for name in expected} == expected


@pytest.mark.parametrize(("data_set", "text"), [("ucf101", UCF101), ("hmdb51", HMDB51)])
def test_the_table_has_the_published_names(shared_data, data_set, text):
    names = read_class_names(shared_data / f"class_lists/mmaction2__{data_set}_label_map.txt")
    assert list(table(text)) == list(names)
