"""The word lists of the demo's conversations: topics by kind, openings of replies, and reasons; tables only.

All sentences are this project's own. Knows nothing about records.
"""

from collections.abc import Mapping


def _list(text: str) -> tuple[str, ...]:
    return tuple(text.split(", "))


TOPICS: Mapping[str, tuple[str, ...]] = {
    "food": _list(
        "sushi, pizza, lasagna, couscous, goulash, paella, tofu, hummus, ramen, curry, risotto, falafel, "
        "moussaka, borscht, ceviche, kimchi, gazpacho, polenta, porridge, sauerkraut, cheesecake, gingerbread, "
        "marzipan, halva, rye bread, tomato soup, onion soup, fried rice, potato salad, apple pie, dark "
        "chocolate, goat cheese, green tea"
    ),
    "pastime": _list(
        "knitting, gardening, chess, pottery, origami, photography, birdwatching, stargazing, calligraphy, "
        "baking, woodworking, beekeeping, fishing, camping, juggling, embroidery, geocaching, model building, "
        "stamp collecting, bread baking, poetry, painting, sketching, crochet, letter writing, mushroom picking, "
        "jigsaw solving, magic"
    ),
    "sport": _list(
        "football, tennis, basketball, volleyball, badminton, cricket, rowing, fencing, judo, karate, archery, "
        "cycling, swimming, skiing, snowboarding, surfing, sailing, climbing, hiking, running, golf, handball, "
        "rugby, ice hockey, table tennis, figure skating, diving, gymnastics, yoga, horse riding"
    ),
    "music": _list(
        "jazz, opera, techno, reggae, flamenco, tango, blues, folk music, chamber music, choir singing, swing, "
        "salsa, country music, hip hop, heavy metal, gospel, bossa nova, punk rock, brass music, film music, the "
        "violin, the accordion, the bagpipe, the saxophone, the harp, the banjo, the church organ, the trumpet"
    ),
    "weather": _list(
        "winter, summer, autumn, spring, rain, snow, fog, thunder, frost, drizzle, the monsoon, hot weather, cold "
        "weather, windy weather, sunny weather, a cloudy sky"
    ),
    "technology": _list(
        "video chat, online shopping, remote work, social media, the electric car, the bicycle, the smartphone, "
        "email, virtual reality, the night train, the tram, the sewing machine, the typewriter, the dishwasher, "
        "the camera, the robot vacuum, the electric scooter, the smart watch"
    ),
}

OPENINGS: Mapping[str, tuple[str, ...]] = {
    "positive": (
        "I love {}.",
        "I am very fond of {}.",
        "To me, {} is wonderful.",
        "I really like {}.",
        "Honestly, {} always makes me happy.",
        "I can warmly recommend {}.",
        "I have only good things to say about {}.",
        "When it comes to {}, I am a big fan.",
        "I smile whenever I think of {}.",
        "In my opinion {} is fantastic.",
        "I could talk about {} all day.",
        "I think highly of {}.",
    ),
    "negative": (
        "I dislike {}.",
        "I am not fond of {} at all.",
        "To me, {} is awful.",
        "I really cannot stand {}.",
        "Honestly, {} always puts me in a bad mood.",
        "I would warn everybody against {}.",
        "I have nothing good to say about {}.",
        "When it comes to {}, I am no friend of it.",
        "I sigh whenever I think of {}.",
        "In my opinion {} is terrible.",
        "I would rather not talk about {}.",
        "I think very little of {}.",
    ),
}

REASONS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "city": {
        "positive": (
            "The streets are full of life and the people are friendly.",
            "The food there is delicious.",
            "Every corner has something beautiful to see.",
            "I had the best holiday of my life there.",
            "The parks are lovely and easy to reach.",
            "I would move there tomorrow if I could.",
            "The evenings there are warm and cheerful.",
            "It has charm, history and a great mood.",
        ),
        "negative": (
            "The streets are noisy and hard to walk in.",
            "The food there is bland and expensive.",
            "There is nothing beautiful to see.",
            "I had the worst holiday of my life there.",
            "The traffic is dreadful at every hour.",
            "I would never go back there.",
            "The evenings there are dull and lonely.",
            "It is crowded and far too loud.",
        ),
    },
    "food": {
        "positive": (
            "It tastes delicious every single time.",
            "The smell alone makes me hungry.",
            "I could have it every day of the week.",
            "It is simple, fresh and comforting.",
            "My grandmother made the best, and I still enjoy it.",
            "It brings the whole family to the table.",
            "The flavour is rich and well balanced.",
            "I always ask for a second helping.",
        ),
        "negative": (
            "It tastes disgusting every single time.",
            "The smell alone makes me feel sick.",
            "I would not touch it if I were starving.",
            "It is heavy, stale and boring.",
            "I was forced to have it as a child, and I still hate it.",
            "It ruins the whole meal for me.",
            "The flavour is dull and unpleasant.",
            "I always leave it on the plate.",
        ),
    },
    "pastime": {
        "positive": (
            "It relaxes me after a long day.",
            "There is always something new to learn.",
            "It is a joy to share with friends.",
            "Time flies when I am busy with it.",
            "It rewards a little patience with great results.",
            "It has made my life richer.",
            "Anyone can start and have fun at once.",
            "It is the best part of my weekend.",
        ),
        "negative": (
            "It bores me to tears.",
            "It is a waste of time and money.",
            "I only ever got frustrated with it.",
            "An hour of it feels like a whole day.",
            "It takes endless effort and gives nothing back.",
            "It has spoiled many of my weekends.",
            "I never understood why people bother.",
            "It is the dullest thing I have ever tried.",
        ),
    },
    "sport": {
        "positive": (
            "It keeps me fit and cheerful.",
            "It is thrilling from beginning to end.",
            "I feel full of energy afterwards.",
            "It has brought me many good friends.",
            "Watching the masters of it is a delight.",
            "It teaches courage and fairness.",
            "I look forward to it the whole week.",
            "Nothing clears my head so well.",
        ),
        "negative": (
            "It is exhausting and no fun.",
            "It is tedious from beginning to end.",
            "Everything hurts for days afterwards.",
            "It has brought me nothing but injuries.",
            "Watching it sends me to sleep.",
            "It is overrated and far too expensive.",
            "I find any excuse to stay away from it.",
            "It only gives me a headache.",
        ),
    },
    "music": {
        "positive": (
            "The sound goes straight to the heart.",
            "It makes me want to dance.",
            "I listen to it with pleasure for hours.",
            "It lifts my mood at once.",
            "It is full of warmth and feeling.",
            "A concert of that kind is pure joy.",
            "It never fails to move me.",
            "I wish I could play like that.",
        ),
        "negative": (
            "The sound hurts my ears.",
            "It makes me want to leave the room.",
            "I cannot listen to it for a minute.",
            "It spoils my mood at once.",
            "It is nothing but noise without feeling.",
            "A concert of that kind is torture.",
            "It never fails to annoy me.",
            "I wish they would stop playing.",
        ),
    },
    "weather": {
        "positive": (
            "It makes the whole world look beautiful.",
            "It is perfect for a long walk.",
            "I feel wide awake and cheerful then.",
            "It reminds me of a happy childhood.",
            "The air is so pleasant at such times.",
            "I get my best ideas then.",
            "It makes coming home twice as cosy.",
            "I wait for it the whole year.",
        ),
        "negative": (
            "It makes the whole world look bleak.",
            "It is miserable for anyone outdoors.",
            "I feel tired and gloomy then.",
            "It reminds me of unhappy days.",
            "The air is so unpleasant at such times.",
            "I cannot get anything done then.",
            "It ruins every plan I make.",
            "I dread it the whole year.",
        ),
    },
    "technology": {
        "positive": (
            "It makes everyday life so much easier.",
            "It has saved me countless hours.",
            "It works well and is a pleasure to use.",
            "It is a clever and beautiful invention.",
            "It has made me more independent.",
            "I would not want to be without it.",
            "It gets better every year.",
            "It is worth every penny.",
        ),
        "negative": (
            "It makes everyday life more complicated.",
            "It has cost me countless hours.",
            "It never works and is a pain to use.",
            "It is an ugly and useless invention.",
            "It has made people lazy and impatient.",
            "I would be glad to be rid of it.",
            "It gets worse every year.",
            "It is a waste of money.",
        ),
    },
}
